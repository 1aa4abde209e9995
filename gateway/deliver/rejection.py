"""Rejection notes (IHE RAD IOCM, RAD-66): a Key Object Selection that says which objects are withdrawn, and why.

Written with pydicom alone: the gateway has no other encoder, and a recall must not need a worker.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from itertools import groupby
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

from gateway.domain.ids import derived_uid
from gateway.domain.messages import ResultObject

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
_SERIES_NUMBER = 9090
_IDENTITY = (
    "SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
    "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "TimezoneOffsetFromUTC", "StudyDescription",
)  # fmt: skip
_MUST_BE_THERE = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "StudyID",
)  # fmt: skip
_DOCUMENTS = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104.")  # SR and KO; encapsulated


class RejectionReason(Enum):
    """Document title of a rejection note (CID 7011 of IHE RAD IOCM): code and meaning."""

    QUALITY = ("113001", "Rejected for Quality Reasons")
    SAFETY = ("113037", "Rejected for Patient Safety Reasons")


@dataclass(frozen=True, kw_only=True)
class RejectionNote:
    """A note, ready for the spool."""

    sop_instance_uid: str
    content: bytes  # a Part 10 file


def write_note(
    job: str, objects: Sequence[ResultObject], like: Path, reason: RejectionReason, why: str, at: float
) -> RejectionNote:
    """A note about objects of one job; patient and study are those of the result file ``like``.

    The same objects and reason always give the same UID. ``why`` is one sentence without patient data, ``at`` its time in
    seconds since the epoch. Raises OSError and InvalidDicomError where the file cannot be read.
    """
    named = sorted(objects, key=lambda one: (one.series_uid, one.sop_instance_uid))
    parts = (job, "rejection", reason.value[0], *(one.sop_instance_uid for one in named))
    note = _like(dcmread(like, stop_before_pixels=True))
    note.SOPClassUID, note.SOPInstanceUID = UID(KEY_OBJECT_SELECTION), UID(derived_uid("instance", *parts))
    note.SeriesInstanceUID = derived_uid("series", *parts)
    _describe(note, datetime.datetime.fromtimestamp(at).astimezone())
    note.CurrentRequestedProcedureEvidenceSequence = Items([_evidence(note.StudyInstanceUID, named)])
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = Items([_code(*reason.value)])
    note.ContentTemplateSequence = Items([_template()])
    note.ContentSequence = Items([_text(why), *(_pointer(one) for one in named)])
    return RejectionNote(sop_instance_uid=str(note.SOPInstanceUID), content=_file(note))


def _like(result: Dataset) -> Dataset:
    note = Dataset()
    for keyword in _IDENTITY:
        if keyword in result:
            note[keyword] = result[keyword]
    for keyword in _MUST_BE_THERE:
        if keyword not in note:
            setattr(note, keyword, None)
    return note


def _describe(note: Dataset, moment: datetime.datetime) -> None:
    note.Modality, note.SeriesNumber, note.InstanceNumber = "KO", _SERIES_NUMBER, 1
    note.SeriesDescription = "AI results withdrawn"
    note.Manufacturer, note.ManufacturerModelName = "Hilum", "Hilum"
    note.ReferencedPerformedProcedureStepSequence = Items([])
    note.ContentDate, note.ContentTime = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")


def _evidence(study: str, objects: Sequence[ResultObject]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = Items([])
    for series, members in groupby(objects, key=lambda one: one.series_uid):
        listed = Dataset()
        listed.SeriesInstanceUID = series
        listed.ReferencedSOPSequence = Items([_reference(one) for one in members])
        item.ReferencedSeriesSequence.append(listed)
    return item


def _reference(one: ResultObject) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return item


def _pointer(one: ResultObject) -> Dataset:
    """TID 2010: an image, or another composite object."""
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "COMPOSITE" if one.sop_class_uid.startswith(_DOCUMENTS) else "IMAGE"
    item.ReferencedSOPSequence = Items([_reference(one)])
    return item


def _text(why: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", why
    item.ConceptNameCodeSequence = Items([_code("113012", "Key Object Description")])
    return item


def _template() -> Dataset:
    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", "2010"
    return item


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _file(note: Dataset) -> bytes:
    note.file_meta = FileMetaDataset()
    note.file_meta.MediaStorageSOPClassUID = note.SOPClassUID
    note.file_meta.MediaStorageSOPInstanceUID = note.SOPInstanceUID
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    note.file_meta.ImplementationClassUID = UID(derived_uid("hilum", "implementation class"))
    note.file_meta.ImplementationVersionName = "HILUM"
    buffer = BytesIO()
    note.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
