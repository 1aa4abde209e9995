"""Does a result speak only of what exists: the job's images, and objects of the same result set?"""

from __future__ import annotations

from workers.verify.evidence import Evidence, Result, referenced


def check_references(result: Result, evidence: Evidence, siblings: dict[str, str]) -> None:
    """Every reference, at any depth, is to an image of the input, to a sibling or to the version before, by its right class.

    ``siblings`` maps SOP Instance UID to SOP Class UID for the other objects of the result set.
    """
    before = {one.sop_instance_uid: one.sop_class_uid for one in evidence.order.predecessors}
    known = {**before, **siblings}
    for sop_class, instance in referenced(result.dataset):
        expected = evidence.class_of.get(instance) or known.get(instance)
        if expected is None:
            raise result.refuse("unknown_reference", "it refers to an instance that is neither input nor result")
        if sop_class != expected:
            raise result.refuse("unknown_reference", "it refers to an instance with another SOP class")


def check_predecessor(result: Result, evidence: Evidence) -> None:
    """A document that replaces another says which (PS3.3 C.17.2): else both would stand side by side."""
    before = {one.sop_instance_uid for one in evidence.order.predecessors if one.role == result.role}
    named = {
        reference.get("ReferencedSOPInstanceUID")
        for study in result.dataset.get("PredecessorDocumentsSequence") or ()
        for series in study.get("ReferencedSeriesSequence") or ()
        for reference in series.get("ReferencedSOPSequence") or ()
    }
    if named != before:
        raise result.refuse("predecessor", "it does not name the document that it replaces")


def check_series_references(result: Result, evidence: Evidence) -> None:
    """PS3.3 C.12.2: the images' series is listed with every image that a frame names; OHIF drops an object without."""
    listed = set()
    for series in result.dataset.get("ReferencedSeriesSequence") or ():
        if series.get("SeriesInstanceUID") != evidence.volume.first.SeriesInstanceUID:
            raise result.refuse("unknown_series", "it refers to a series that is not the input")
        listed |= {item.get("ReferencedSOPInstanceUID") for item in series.get("ReferencedInstanceSequence") or ()}
    for frame in result.dataset.get("PerFrameFunctionalGroupsSequence") or ():
        if not {instance for _, instance in referenced(frame)} <= listed:
            raise result.refuse("no_series", "the series of a frame's source image is not listed")


def check_evidence(result: Result, evidence: Evidence, series_of: dict[str, str]) -> None:
    """PS3.3 C.17.2.3: every instance in the content tree is listed once, under its right study and series.

    That is the result's own study but for the images of a prior.
    ``series_of`` maps SOP Instance UID to Series Instance UID for the objects of the result set.
    """
    listed: dict[str, str] = {}
    own = str(evidence.volume.first.StudyInstanceUID)
    for study in result.dataset.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                if study.get("StudyInstanceUID") != evidence.study_of.get(
                    str(item.get("ReferencedSOPInstanceUID")), own
                ):
                    raise result.refuse("unknown_study", "its evidence is of another study")
                listed[str(item.get("ReferencedSOPInstanceUID"))] = str(series.get("SeriesInstanceUID"))
    if any(series != (evidence.series_of | series_of).get(uid, series) for uid, series in listed.items()):
        raise result.refuse("unknown_series", "its evidence lists an instance under another series")
    for item in result.dataset.get("ContentSequence") or ():
        if not {instance for _, instance in referenced(item)} <= set(listed):
            raise result.refuse("no_evidence", "an instance of the content tree is not listed as evidence")
