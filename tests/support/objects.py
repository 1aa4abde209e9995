"""Small DICOM objects to send: shaped like results, valid enough for every receiver."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ComprehensiveSRStorage, ExplicitVRLittleEndian, SegmentationStorage

from gateway.domain.ids import derived_uid
from gateway.domain.ports import ObjectFile


def write_object(
    directory: Path,
    name: str,
    *,
    sop_class: str = SegmentationStorage,
    syntax: str = ExplicitVRLittleEndian,
    study: str = "study",
    size: int = 512,
    change: dict[str, object] | None = None,
) -> ObjectFile:
    """Writes one object whose UIDs follow from its name; ``size`` bytes of pixel data where it is no report."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, derived_uid("instance", name)
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240102", "030405", "A1"
    dataset.Modality = "SEG" if sop_class == SegmentationStorage else "SR" if _is_report(sop_class) else "MR"
    dataset.Manufacturer = "Somebody"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "P1"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = derived_uid(study), derived_uid("series", study, sop_class)
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", "1", "1"
    if _is_report(sop_class):
        dataset.ContentSequence = Sequence([_text_item("finding")])
    else:
        _add_pixels(dataset, size)
    for keyword, value in (change or {}).items():
        setattr(dataset, keyword, value)
    path = directory / f"{name}.dcm"
    save(dataset, path, syntax)
    return ObjectFile(sop_class_uid=sop_class, sop_instance_uid=dataset.SOPInstanceUID, path=path)


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    """Writes a Part 10 file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.PixelData = encapsulate([dataset.PixelData])  # not an image of that kind, and nobody looks
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _is_report(sop_class: str) -> bool:
    return sop_class == ComprehensiveSRStorage


def _add_pixels(dataset: Dataset, size: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    columns = 16 if size < 1 << 19 else 4096
    dataset.Rows, dataset.Columns = size // columns, columns
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(range(256)) * (dataset.Rows * columns // 256)


def _text_item(text: str) -> Dataset:
    item = Dataset()
    item.ValueType, item.TextValue, item.RelationshipType = "TEXT", text, "CONTAINS"
    return item
