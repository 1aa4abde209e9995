"""Instances as the gateway takes them in: encoded datasets, headers, records, and a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from gateway.domain.ids import AETitle, AssociationId, InstanceUID, SeriesUID, Sha256, StudyUID, digest
from gateway.domain.study import Header, Instance, Patient

STUDY, SERIES = StudyUID("1.2.826.1"), SeriesUID("1.2.826.1.1")


class MovedClock:
    """Implements `gateway.domain.ports.Clock`, and stands still until it is moved."""

    def __init__(self, now: float = 1_767_348_900.0) -> None:
        self.time = now

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.time


def dataset(number: int = 1, **attributes: object) -> Dataset:
    """An MR image without pixels, the ``number``-th of its series; an attribute given as None is left out."""
    values: dict[str, object] = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": f"{SERIES}.{number}",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "Modality": "MR",
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "Rows": 2,
        "Columns": 2,
        "PixelSpacing": [1.0, 1.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, number],
    }
    made = Dataset()
    for keyword, value in (values | attributes).items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def encode(made: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    """The dataset as it goes over the wire."""
    buffer = BytesIO()
    stream = DicomIO(buffer)
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    write_dataset(stream, made)
    return buffer.getvalue()


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """One element in explicit VR little endian, well-formed or not: nobody looks at what is in it."""
    group_element = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC"):
        return group_element + vr + b"\0\0" + len(value).to_bytes(4, "little") + value
    return group_element + vr + len(value).to_bytes(2, "little") + value


def header(number: int = 1, *, study: str = STUDY, series: str = SERIES, **more: object) -> Header:
    """The header of an MR image."""
    values: dict[str, object] = {
        "sop_class_uid": str(MRImageStorage),
        "sop_instance_uid": InstanceUID(f"{series}.{number}"),
        "series_uid": SeriesUID(series),
        "study_uid": StudyUID(study),
        "transfer_syntax_uid": str(ExplicitVRLittleEndian),
        "patient": Patient(patient_id="P1", name="Doe^Jane"),
        "modality": "MR",
    }
    return Header(**(values | more))  # type: ignore[arg-type]


def instance(
    number: int = 1,
    *,
    content: str = "",
    association: str = "a1",
    at: float = 1_767_348_900.0,
    change: Callable[[Header], Header] = lambda item: item,
    **more: object,
) -> Instance:
    """A stored instance; ``content`` makes another digest."""
    item = change(header(number, **more))  # type: ignore[arg-type]
    sha256 = Sha256(digest(item.sop_instance_uid, content))
    return Instance(
        header=item,
        sha256=sha256,
        size=1000,
        file=f"{sha256[:2]}/{sha256}",
        calling_ae=AETitle("CT1"),
        address="127.0.0.1",
        association_id=AssociationId(association),
        received_at=at,
    )
