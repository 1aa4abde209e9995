"""Writes a volume as an ordinary single-frame series, in any orientation, order and state of repair."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from gateway.domain.messages import InputFile, JobOrder
from workers.sample import slices

MR_ONLY = ("ScanningSequence", "SequenceVariant", "MRAcquisitionType", "EchoTime", "RepetitionTime", "EchoTrainLength")

Change = Callable[[int, Dataset], None]


def axial(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (3.0, 1.0, 1.0)) -> NDArray[np.float64]:
    """The affine of axial slices from feet to head, centred on the origin; spacing between slices, rows, columns."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.array(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def write_series(
    directory: Path,
    voxels: NDArray[np.generic],
    affine: NDArray[np.float64],
    *,
    modality: str = "MR",
    missing: Collection[int] = (),
    places: Sequence[float] = (),
    slope: float | None = None,
    intercept: float | None = None,
    signed: bool = False,
    transfer_syntax: str = ExplicitVRLittleEndian,
    shuffle: bool = True,
    seed: str = "",
    attributes: dict[str, object] | None = None,
    change: Change | None = None,
) -> list[Path]:
    """Writes one MR or CT image for each slice and returns the files in index order, missing ones left out.

    ``voxels`` are stored values, 16 bit, (slices, rows, columns); ``affine`` takes (slice, row, column, 1) to LPS mm.
    File names and instance numbers are in random order with ``shuffle``, so that nothing can lean on them.
    ``places`` say where slices lie that are not evenly spaced, in steps of the affine's first axis.
    ``attributes`` are set in every dataset; ``change(index, dataset)`` may do anything to one, last of all.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = list(range(1, len(voxels) + 1))
    if shuffle:
        random.Random(seed).shuffle(names)
    stored = np.asarray(voxels).astype(np.int16 if signed else np.uint16)
    paths = []
    for index, dataset in enumerate(slices(stored.view(np.uint16), affine, seed=seed)):
        if index in missing:
            continue
        _as_modality(dataset, modality)
        if len(places):
            place = affine[:3, 3] + places[index] * affine[:3, 0]
            dataset.ImagePositionPatient = [DSfloat(float(value), auto_format=True) for value in place]
        dataset.InstanceNumber = names[index]
        dataset.PixelRepresentation = int(signed)
        if slope is not None or intercept is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope or 1, intercept or 0, "US"
        for keyword, value in (attributes or {}).items():
            setattr(dataset, keyword, value)
        if change is not None:
            change(index, dataset)
        paths.append(directory / f"IM{names[index]:05}")
        _save(dataset, paths[-1], UID(transfer_syntax))
    return paths


def _as_modality(dataset: Dataset, modality: str) -> None:
    dataset.Modality = modality
    if modality == "CT":
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        for keyword in MR_ONLY:
            delattr(dataset, keyword)
        dataset.KVP = "120"
        dataset.AcquisitionNumber = 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0


def _save(dataset: Dataset, path: Path, syntax: UID) -> None:
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset["PixelData"].VR = "OW"
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.save_as(
        path,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )


def dataset_sha256(path: Path) -> str:
    """SHA-256 of what follows the file meta information (PS3.10 7.1), found without the product's code."""
    data = path.read_bytes()
    meta = dcmread(BytesIO(data), stop_before_pixels=True).file_meta
    # Preamble and prefix 132 bytes, then (0002,0000) itself 12 bytes, then as many as it says.
    return hashlib.sha256(data[132 + 12 + int(meta.FileMetaInformationGroupLength) :]).hexdigest()


def input_file(path: Path) -> InputFile:
    """A file as a job order names it."""
    uid = str(dcmread(path, specific_tags=["SOPInstanceUID"]).get("SOPInstanceUID", "1.2.3"))
    return InputFile(sop_instance_uid=uid, path=str(path), sha256=dataset_sha256(path))


def job_order(paths: Collection[Path], bundle: Path, output: Path, *, job_id: str = "0" * 32) -> JobOrder:
    """An order to run a bundle on these files."""
    output.mkdir(parents=True, exist_ok=True)
    return JobOrder(
        job_id=job_id,
        bundle=str(bundle),
        inputs=tuple(input_file(path) for path in paths),
        output_dir=str(output),
        content_time=1_767_348_900.0,
    )
