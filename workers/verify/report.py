"""Does a structured report say what was measured, of what, where, and that nobody has verified it yet?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydicom.dataset import Dataset

from gateway.domain.messages import MeasurementResult
from workers.verify.evidence import Evidence, Result, code_of

_REPORT, _MEASUREMENTS, _GROUP = ("126000", "DCM"), ("126010", "DCM"), ("125007", "DCM")
_TRACKING_ID, _TRACKING_UID = ("112039", "DCM"), ("112040", "DCM")
_DEVICE_UID, _PROCEDURE = ("121012", "DCM"), ("121058", "DCM")
_ALGORITHM, _FINDING, _SEGMENT = ("111001", "DCM"), ("121071", "DCM"), ("121191", "DCM")
_CERTAINTY = ("111012", "DCM")
AREA = ("42798000", "SCT")


def check_document(result: Result, _: Evidence) -> None:
    """TID 1500 by name and template, preliminary and unverified (PS3.3 C.17.2)."""
    dataset = result.dataset
    template = [
        (item.get("MappingResource"), item.get("TemplateIdentifier"))
        for item in dataset.get("ContentTemplateSequence") or ()
    ]
    if template != [("DCMR", "1500")] or code_of(dataset, "ConceptNameCodeSequence") != _REPORT:
        raise result.refuse("template", "it is not declared as a TID 1500 measurement report")
    if (dataset.get("PreliminaryFlag"), dataset.get("VerificationFlag")) != ("PRELIMINARY", "UNVERIFIED"):
        raise result.refuse("status", "it is not marked preliminary and unverified")
    for name, what in ((_DEVICE_UID, "device that observed"), (_PROCEDURE, "procedure")):
        if not list(children(dataset, name)):
            raise result.refuse("context", f"it does not name the {what}")


def check_groups(result: Result, evidence: Evidence, segment_of: dict[str, int]) -> None:
    """One group for each segment, under the segment's tracking UID, with finding and algorithm.

    ``segment_of`` maps the tracking UIDs of the segmentation to segment numbers.
    """
    seen = []
    for group in groups(result):
        seen.append(segment_of.get(tracking_uid(result, group), 0))
        for name in (_FINDING, _ALGORITHM):
            if not list(children(group, name)):
                raise result.refuse("group", "a measurement group lacks its finding or its algorithm")
    if sorted(seen) != [spec.number for spec in evidence.manifest.output.segments]:
        raise result.refuse("tracking", "measurement groups and segments do not have the same tracking UIDs")


def check_numbers(result: Result, evidence: Evidence, segment_of: dict[str, int]) -> None:
    """Every measurement stands in its segment's group with value and unit, and no number stands there beside them."""
    for group in groups(result):
        segment = segment_of[tracking_uid(result, group)]
        expected = [item for item in evidence.measurements if item.segment == segment]
        items = [item for item in numbers(group) if not (result.kind == "sr" and is_area(item))]
        if len(items) != len(expected):
            raise result.refuse("numbers", f"segment {segment} has not as many numbers as were measured")
        for item, measurement in zip(items, expected, strict=True):
            if not _says(item, measurement):
                raise result.refuse(
                    "numbers", f"{measurement.name.meaning} of segment {segment} is not what was measured"
                )


def check_statements(result: Result, evidence: Evidence) -> None:
    """A report about the whole series: one group for each number, in their order, on one image of the input.

    Of a classification the number is the certainty of the group's finding.
    """
    found = groups(result)
    if len(found) != len(evidence.measurements) or len({tracking_uid(result, group) for group in found}) != len(found):
        raise result.refuse("tracking", "measurement groups are not one for each number")
    findings = {(spec.name.value, spec.name.scheme) for spec in evidence.manifest.output.findings}
    for group, expected in zip(found, evidence.measurements, strict=True):
        name = expected.name.value, expected.name.scheme
        said = [code_of(item, "ConceptCodeSequence") for item in children(group, _FINDING)]
        if said != [name] or not list(children(group, _ALGORITHM)):
            raise result.refuse("group", "a measurement group lacks its finding or its algorithm")
        items = numbers(group)
        if len(items) != 1 or not _says(items[0], expected, _CERTAINTY if name in findings else name):
            raise result.refuse("numbers", f"{expected.name.meaning} is not what the model said")
        images = [
            evidence.slice_at(target)
            for place in items[0].get("ContentSequence") or ()
            for image in place.get("ContentSequence") or ()
            for target in image.get("ReferencedSOPSequence") or ()
        ]
        if len(images) != 1 or images[0] is None:
            raise result.refuse("no_outline", "a number does not lie on exactly one image of the input")


def check_segment_references(result: Result, segmentation: Result, segment_of: dict[str, int]) -> None:
    """Each group of the data report refers to its own segment of this result set's segmentation (TID 1411)."""
    for group in groups(result):
        targets = [
            (target.get("ReferencedSOPInstanceUID"), target.get("ReferencedSegmentNumber"))
            for item in children(group, _SEGMENT)
            for target in item.get("ReferencedSOPSequence") or ()
        ]
        if targets != [(segmentation.dataset.SOPInstanceUID, segment_of[tracking_uid(result, group)])]:
            raise result.refuse("segment_reference", "a measurement group does not refer to its segment")


def tracking_uid(result: Result, group: Dataset) -> str:
    """The UID of what a group measures; raises GateRefused where it is missing."""
    identifiers = [item.get("TextValue") for item in children(group, _TRACKING_ID)]
    uids = [item.get("UID") for item in children(group, _TRACKING_UID)]
    if len(identifiers) != 1 or len(uids) != 1 or not identifiers[0] or not uids[0]:
        raise result.refuse("tracking", "a measurement group lacks its tracking identifier or tracking UID")
    return str(uids[0])


def groups(result: Result) -> list[Dataset]:
    """The measurement groups (TID 1500 row 6)."""
    return [group for container in children(result.dataset, _MEASUREMENTS) for group in children(container, _GROUP)]


def numbers(group: Dataset) -> list[Dataset]:
    """The NUM items of a group."""
    return [item for item in group.get("ContentSequence") or () if item.get("ValueType") == "NUM"]


def is_area(item: Dataset) -> bool:
    """Whether a NUM item is the area of an outline."""
    return code_of(item, "ConceptNameCodeSequence") == AREA


def value_of(item: Dataset) -> tuple[float, tuple[str, str]]:
    """Value and unit of a NUM item; NaN where it has none, or two that differ."""
    for measured in item.get("MeasuredValueSequence") or ():
        value = float(measured.get("NumericValue", math.nan))
        exact = float(measured.get("FloatingPointValue", value))
        agree = math.isclose(value, exact, rel_tol=1e-6, abs_tol=1e-9)
        return (value if agree else math.nan), code_of(measured, "MeasurementUnitsCodeSequence")
    return math.nan, ("", "")


def children(item: Dataset, name: tuple[str, str]) -> Iterator[Dataset]:
    """Content items below this one with a concept name."""
    for child in item.get("ContentSequence") or ():
        if code_of(child, "ConceptNameCodeSequence") == name:
            yield child


def _says(item: Dataset, measurement: MeasurementResult, name: tuple[str, str] | None = None) -> bool:
    value, unit = value_of(item)
    return (
        code_of(item, "ConceptNameCodeSequence") == (name or (measurement.name.value, measurement.name.scheme))
        and unit == (measurement.unit.value, measurement.unit.scheme)
        and math.isclose(value, measurement.value, rel_tol=1e-6, abs_tol=1e-9)
    )
