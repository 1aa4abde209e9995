"""How a new version of a result names the one that it replaces."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from gateway.domain import roles
from gateway.domain.messages import ResultObject
from workers.encode.source import Source

_DOCUMENTS = (
    roles.SR, roles.SR_STRICT, roles.SR_DATA, roles.SR_COMPREHENSIVE, roles.SR_DATA_COMPREHENSIVE, roles.PDF, roles.KO,
)  # fmt: skip
_IMAGES = (roles.SEG, roles.SEG_LABELMAP, roles.SEG_ALL_FRAMES, roles.PM, roles.SC)


def name_predecessors(dataset: Dataset, role: str, source: Source) -> None:
    """Refers to the objects of the same role in the version before, where there is one.

    A document by Predecessor Documents Sequence (PS3.3 C.17.2, C.24.2), an image by Referenced Instance Sequence (C.12.4).
    A Key Object Selection has no place of its own for it: there the sequence is an extension (PS3.2 Standard Extended
    SOP Class), and its text says the same.
    """
    earlier = [one for one in source.order.predecessors if one.role == role]
    if earlier and role in _DOCUMENTS:
        study = str(source.volume.first.StudyInstanceUID)
        dataset.PredecessorDocumentsSequence = Items([_document(one, study) for one in earlier])
    elif earlier and role in _IMAGES:
        dataset.ReferencedInstanceSequence = Items([_instance(one) for one in earlier])


def _document(one: ResultObject, study: str) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = one.series_uid
    series.ReferencedSOPSequence = Items([_reference(one)])
    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = Items([series])
    return item


def _instance(one: ResultObject) -> Dataset:
    item = _reference(one)
    purpose = (
        Dataset()
    )  # PS3.16 has codes for predecessors of other kinds (uncompressed, for processing ...), none for this
    purpose.CodeValue, purpose.CodingSchemeDesignator = "SUPERSEDED", "99HILUM"
    purpose.CodeMeaning = "Earlier version of this result"
    item.PurposeOfReferenceCodeSequence = Items([purpose])
    return item


def _reference(one: ResultObject) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return item
