"""The series of a model that takes several: each loaded by its own rules, all on the grid of the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.bundle.input import Input, Registration
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import InputRefused
from gateway.domain.messages import JobOrder
from gateway.domain.prior import Moment, same_patient
from workers.load.envelope import enforce, read_fingerprint
from workers.load.registration import Alignment, align, resample
from workers.load.series import load, load_series, patient_of
from workers.load.uneven import even
from workers.load.volume import Companion, Volume


def load_inputs(order: JobOrder, manifest: Manifest) -> Volume:
    """The volume of a model of one series; of one of several the first series, with the others as its companions.

    Raises InputRefused as `load_series` does, with the input's name in front, and for series that are not of one patient and
    study, or where a prior is wanted not of an earlier study of the patient (`mixed_series`), that are missing
    (`input_missing`), or that cannot be brought together (`registration`, `frame_of_reference`).
    """
    if not manifest.inputs:
        return load(order, manifest)
    share = manifest.resources.memory_mib / len(manifest.series)
    files = {item.name: [file for file in order.inputs if file.input == item.name] for item in manifest.series}
    if sum(map(len, files.values())) != len(order.inputs):
        raise InputRefused("there are images for an input that the manifest does not have", code="input_unknown")
    with _named(manifest.input):
        volume = load_series(files[manifest.input.name], manifest.input, share)
    companions, flags = [], list(volume.flags)
    for item in manifest.series[1:]:
        with _named(item):
            if not files[item.name]:
                companions.append(_absent(item, volume))
                continue
            found = load_series(files[item.name], item, share)
            if item.envelope is not None:
                reference = read_fingerprint(Path(order.bundle) / item.envelope.fingerprint)
                found, _ = enforce(found, reference, item.envelope)
            companion, said = _brought(volume, found, item, manifest.registration)
        companions.append(companion)
        flags += [f"{item.name}: {flag}" for flag in (*found.flags, *said)]
    return replace(volume, companions=tuple(companions), flags=tuple(flags))


@contextmanager
def _named(item: Input) -> Iterator[None]:
    try:
        yield
    except InputRefused as refusal:
        raise InputRefused(f"{item.name}: {refusal.message}", code=refusal.code) from refusal


def _absent(item: Input, volume: Volume) -> Companion:
    if item.missing != "zeros":
        raise InputRefused("there is no series for this input", code="input_missing")
    nothing = np.broadcast_to(np.float32(0), volume.voxels.shape)
    return Companion(name=item.name, voxels=nothing, said="missing: zeros")


def _brought(volume: Volume, other: Volume, item: Input, settings: Registration) -> tuple[Companion, tuple[str, ...]]:
    """Another series on the volume's grid, and what a reader must know about how it came there."""
    prior = item.study == "prior"
    (check_prior if prior else check_same_study)(volume, other)
    found, said = aligned(volume, other, settings)
    voxels = _onto(volume, even(other), found.motion)
    how = told(found, other.first) + (f", of the earlier study {other.first.StudyInstanceUID}" if prior else "")
    return Companion(name=item.name, voxels=voxels, headers=images_of(other), said=how, prior=prior), said


def aligned(volume: Volume, other: Volume, settings: Registration) -> tuple[Alignment, tuple[str, ...]]:
    """Where another series of the patient lies, as seen from the volume, and what a reader must know about how that was found.

    Raises InputRefused (`frame_of_reference`, `registration`) where it does not lie on the volume as the settings want it.
    """
    apart = str(volume.first.FrameOfReferenceUID) != str(other.first.FrameOfReferenceUID)
    if apart and settings.method == "never":
        raise InputRefused(
            "the series have different frames of reference, and the manifest allows no registration",
            code="frame_of_reference",
        )
    found = align(
        even(volume), even(other), search=settings.method == "always" or (apart and settings.method == "auto")
    )
    problem = _problem(found, settings)
    if problem and settings.outside == "refuse":
        raise InputRefused(f"not processed: {problem}", code="registration")
    return found, (*((f"{problem}.",) if problem else ()), *((f"{_moved(found)}.",) if found.registered else ()))


def check_same_study(volume: Volume, other: Volume) -> None:
    """Raises InputRefused (`mixed_series`) where two series are not of one patient and one study."""
    if (
        patient_of(volume.first).key() != patient_of(other.first).key()
        or volume.first.StudyInstanceUID != other.first.StudyInstanceUID
    ):
        raise InputRefused("the series are not of one patient and one study", code="mixed_series")


def check_prior(volume: Volume, other: Volume) -> None:
    """Raises InputRefused (`mixed_series`) where the other series is not of an earlier study of the same patient."""
    if not same_patient(patient_of(volume.first), patient_of(other.first)):
        raise InputRefused("the prior is not certainly of the same patient", code="mixed_series")
    if volume.first.StudyInstanceUID == other.first.StudyInstanceUID or not _begun(other).before(_begun(volume)):
        raise InputRefused("the prior is not of an earlier study", code="mixed_series")


def _begun(volume: Volume) -> Moment:
    return Moment.of(*(str(volume.first.get(keyword) or "") for keyword in ("StudyDate", "StudyTime")))


def images_of(volume: Volume) -> tuple[Dataset, ...]:
    """A header for each instance."""
    return tuple({str(header.SOPInstanceUID): header for header in volume.headers if header is not None}.values())


def _onto(volume: Volume, other: Volume, motion: NDArray[np.float64]) -> NDArray[np.float32]:
    """Another series' voxels on the slices of the volume, wherever each of them lies."""
    if not volume.places:
        return resample(other.voxels, other.affine, motion, volume.affine, volume.voxels.shape)
    slices = []
    for level in volume.levels:
        affine = volume.affine.copy()
        affine[:3, 3] += level * volume.affine[:3, 0]
        slices.append(resample(other.voxels, other.affine, motion, affine, (1, *volume.voxels.shape[1:])))
    return np.concatenate(slices)


def _problem(found: Alignment, settings: Registration) -> str:
    if found.overlap < settings.overlap:
        return (
            f"the series covers {found.overlap:.0%} of the body in the first, at least {settings.overlap:.0%} is needed"
        )
    if found.agreement < settings.agreement:
        return (
            f"the series does not agree with the first (shared information {found.agreement:.3f}, "
            f"at least {settings.agreement:g} is needed)"
        )
    return ""


def _moved(found: Alignment) -> str:
    return (
        f"registered rigidly to the first series: turned by {found.degrees:.1f} degrees, moved by up to {found.shift:.0f} mm, "
        f"shared information {found.agreement:.3f}"
    )


def told(found: Alignment, header: Dataset) -> str:
    """For provenance: which series, and how it came to lie where it does."""
    way = "rigid registration" if found.registered else "common frame of reference"
    rows = "; ".join(" ".join(f"{value:.6g}" for value in row) for row in found.motion[:3])
    return f"series {header.SeriesInstanceUID}, {way}, agreement {found.agreement:.4f}, overlap {found.overlap:.4f}, motion {rows}"
