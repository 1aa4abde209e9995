"""The files of one series to one volume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.bundle.input import Input
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import InputRefused
from gateway.domain.messages import InputFile, JobOrder
from gateway.domain.study import Patient
from workers.load.alike import Alike, representatives
from workers.load.geometry import Plane, Stack, check_limits, spacing_of, stack
from workers.load.multiframe import frames, is_multiframe
from workers.load.padding import fill_of, replace_padding
from workers.load.part10 import BROKEN, read
from workers.load.pixels import ModalityValues
from workers.load.volume import Volume
from workers.load.volumes import check_not_interleaved, one_volume

MEMORY_SHARE = 0.125
"""The part of a model's memory that the input volume may take: transforms hold several copies at a time."""

_THREADS = min(len(os.sched_getaffinity(0)), 8)
_PATIENT = ("SpecificCharacterSet", "PatientID", "IssuerOfPatientID", "PatientName")

_T = TypeVar("_T")

ONE_OF_EACH = {
    "study": ("Study Instance UID", "StudyInstanceUID"),
    "series": ("Series Instance UID", "SeriesInstanceUID"),
    "modality": ("modality", "Modality"),
    "frame_of_reference": ("frame of reference", "FrameOfReferenceUID"),
    "sop_class": ("SOP class", "SOPClassUID"),
}
"""Code of the refusal -> what all images of a series have in common, and where it stands."""


def load(order: JobOrder, manifest: Manifest) -> Volume:
    """Reads the order's files, checks that they are one series the model takes, and stacks them into a volume.

    Nothing is assumed about names, order or number of the files. Raises InputRefused with a code and one sentence for
    everything that is not a single, complete stack within the manifest's limits.
    """
    return load_series(order.inputs, manifest.input, manifest.resources.memory_mib)


def load_series(files: Sequence[InputFile], wanted: Input, memory_mib: float) -> Volume:
    """One series for one input of a manifest; a model may have so much memory for it and for what is made of it."""
    limits = wanted.geometry
    if not files or len(files) > limits.slices.max:
        raise InputRefused(
            f"the series has {len(files)} images, the model takes at most {limits.slices.max}", code="slices"
        )
    with ThreadPoolExecutor(_THREADS) as threads:  # files, digests and pixels are read side by side, headers in between
        datasets, multiframe = _single_frames(list(threads.map(read, files)))
        _check_common(datasets, wanted)
        datasets, said = one_volume(datasets, [_position(dataset) for dataset in datasets], limits.volumes)
        planes = _planes(datasets)
        placed = stack(planes, gaps=limits.gaps, uneven=limits.uneven)
        check_limits(placed, planes[0].shape, limits)
        if placed.places:
            check_not_interleaved([datasets[index] for index in placed.order if index is not None])
        voxels, outside = _voxels(datasets, placed, planes[0].shape, memory_mib, threads)
        outside = replace_padding(voxels, outside, fill_of(wanted.padding, str(datasets[0].Modality)))
        _check_not_blank(voxels)
    return Volume(
        voxels=voxels,
        affine=placed.affine,
        headers=tuple(None if index is None else datasets[index] for index in placed.order),
        frames=_frame_numbers(datasets, placed) if multiframe else (),
        places=placed.places,
        outside=outside,
        flags=(*said, *_flags(placed)),
    )


def _single_frames(datasets: list[Dataset]) -> tuple[list[Dataset], bool]:
    """The images, with each frame of a multi-frame image as one of its own, and whether they were multi-frame."""
    if len({str(dataset.SOPInstanceUID) for dataset in datasets}) < len(datasets):
        raise InputRefused("the same instance is there more than once", code="duplicate_instance")
    enhanced = [is_multiframe(dataset) for dataset in datasets]
    if any(enhanced) and not all(enhanced):
        raise InputRefused("the series holds multi-frame images and others", code="multiframe")
    if not any(enhanced):
        return datasets, False
    return [frame for dataset in datasets for frame in frames(dataset)], True


def _frame_numbers(datasets: Sequence[Dataset], placed: Stack) -> tuple[int | None, ...]:
    return tuple(None if index is None else int(datasets[index].InstanceNumber) for index in placed.order)


def _check_common(datasets: Sequence[Dataset], wanted: Input) -> None:
    for code, (name, keyword) in ONE_OF_EACH.items():
        found = {_read(dataset, keyword, str, "") for dataset in representatives(datasets, [keyword])}
        if "" in found:
            raise InputRefused(f"an image of the series has no {name}", code=code)
        if len(found) > 1:
            raise InputRefused(f"the images have {len(found)} different values of {name}, not one", code=code)
    if len({patient_of(dataset).key() for dataset in representatives(datasets, _PATIENT)}) > 1:
        raise InputRefused("the images are of more than one patient", code="mixed_patients")
    _check_kind(datasets[0], wanted)


def _check_kind(dataset: Dataset, wanted: Input) -> None:
    modality = _read(dataset, "Modality", str, "")
    if modality not in wanted.modality:
        taken = " or ".join(wanted.modality)
        raise InputRefused(f"the series is {modality}, the model takes {taken}", code="modality")
    part = _read(dataset, "BodyPartExamined", str, "").strip().upper()
    if part and wanted.body_part and part not in wanted.body_part:
        taken = " or ".join(wanted.body_part)
        raise InputRefused(f"the series is of another body part, the model takes {taken}", code="body_part")


def patient_of(dataset: Dataset) -> Patient:
    """Who an image is of."""
    return Patient(
        patient_id=_read(dataset, "PatientID", str, ""),
        issuer=_read(dataset, "IssuerOfPatientID", str, ""),
        name=_read(dataset, "PatientName", str, ""),
        birth_date=_read(dataset, "PatientBirthDate", str, ""),
    )


def _planes(datasets: Sequence[Dataset]) -> list[Plane]:
    grid = Alike(_plane, ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SliceThickness"))
    return [replace(grid(dataset), position=_position(dataset)) for dataset in datasets]


def _plane(dataset: Dataset) -> Plane:
    """The plane of an image that lies at the origin."""
    spacing = _numbers(dataset, "PixelSpacing", 2)
    if min(spacing) <= 0:
        raise InputRefused("Pixel Spacing is not positive", code="geometry")
    return Plane(
        position=(0.0, 0.0, 0.0),
        orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        spacing=(spacing[0], spacing[1]),
        shape=(_read(dataset, "Rows", int, 0), _read(dataset, "Columns", int, 0)),
        thickness=_read(dataset, "SliceThickness", float, 0.0),
    )


def _position(dataset: Dataset) -> tuple[float, float, float]:
    x, y, z = _numbers(dataset, "ImagePositionPatient", 3)
    return x, y, z


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    absent: tuple[float, ...] = ()
    values = _read(dataset, keyword, _floats, absent)
    if len(values) != count or not np.isfinite(values).all():
        raise InputRefused(f"an image has no valid {keyword}: it has no known place in the patient", code="geometry")
    return values


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _read(dataset: Dataset, keyword: str, kind: Callable[[Any], _T], absent: _T) -> _T:
    """An attribute's value; one that is there but broken counts as absent, and is refused where it is needed."""
    try:
        value = dataset.get(keyword)
        return absent if value is None or value == "" else kind(value)
    except BROKEN:
        return absent


def _voxels(
    datasets: Sequence[Dataset], placed: Stack, shape: tuple[int, int], memory_mib: float, threads: Executor
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Values and, where an image names a Pixel Padding Value, which of them are padding."""
    slices = max(len(placed.order), round(float(placed.levels[-1])) + 1)  # what a model is given of an uneven stack
    needed = slices * shape[0] * shape[1] * np.dtype(np.float32).itemsize
    allowed = int(MEMORY_SHARE * memory_mib * 2**20)
    if needed > allowed:
        raise InputRefused(
            f"the volume needs {needed / 2**20:.0f} MiB, the model's limit leaves {allowed / 2**20:.0f}",
            code="too_large",
        )
    voxels = np.empty((len(placed.order), *shape), dtype=np.float32)
    padded = any("PixelPaddingValue" in dataset for dataset in datasets)
    outside = np.zeros(voxels.shape, bool) if padded else None
    values = ModalityValues()

    def decode(slot: int) -> None:
        if (index := placed.order[slot]) is not None:
            values.write(datasets[index], voxels[slot], None if outside is None else outside[slot])
            del datasets[index].PixelData  # a header from here on; two copies of all pixels would be too many

    list(threads.map(decode, range(len(voxels))))
    _bridge(voxels, outside, placed.order)
    return voxels, outside


def _check_not_blank(voxels: NDArray[np.float32]) -> None:
    if not any((plane != voxels[0, 0, 0]).any() for plane in voxels):
        raise InputRefused("all voxels have the same value: the images are blank", code="blank")


def _bridge(voxels: NDArray[np.float32], outside: NDArray[np.bool_] | None, order: Sequence[int | None]) -> None:
    """Fills missing slices by linear interpolation between their neighbours; nothing was measured where one of them has nothing."""
    real = [slot for slot, index in enumerate(order) if index is not None]
    for below, above in pairwise(real):
        for slot in range(below + 1, above):
            weight = (slot - below) / (above - below)
            voxels[slot] = (1 - weight) * voxels[below] + weight * voxels[above]
            if outside is not None:
                outside[slot] = outside[below] | outside[above]


def _flags(placed: Stack) -> tuple[str, ...]:
    flags = []
    if placed.missing:
        flags.append(
            f"{placed.missing} of {len(placed.order)} slices were missing and were interpolated from their neighbours."
        )
    if placed.places:
        distances = np.diff(placed.levels) * spacing_of(placed.affine)[0]
        flags.append(
            f"The slices are unevenly spaced, {distances.min():.2f} to {distances.max():.2f} mm apart; the model saw them "
            f"resampled to {spacing_of(placed.affine)[0]:.2f} mm."
        )
    if placed.holes:
        flags.append(
            f"{placed.holes} distances between slices are much larger than those around them: slices may be missing."
        )
    if placed.tilt:
        flags.append(f"The gantry was tilted by {placed.tilt:.1f} degrees; the model saw the slices set upright.")
    return tuple(flags)
