"""Does a structured report say what was measured, of what, where, and that nobody has verified it yet?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from gateway.domain import roles
from gateway.domain.messages import MeasurementResult
from workers.verify.evidence import Evidence, Result, code_of

_REPORT, _MEASUREMENTS, _GROUP = ("126000", "DCM"), ("126010", "DCM"), ("125007", "DCM")
_TRACKING_ID, _TRACKING_UID = ("112039", "DCM"), ("112040", "DCM")
_DEVICE_UID, _PROCEDURE = ("121012", "DCM"), ("121058", "DCM")
_ALGORITHM, _FINDING, _SEGMENT = ("111001", "DCM"), ("121071", "DCM"), ("121191", "DCM")
_CERTAINTY, _QUANTITY, _PRESENCE = ("111012", "DCM"), ("246205007", "SCT"), ("121052", "DCM")
_SITE = ("363698007", "SCT")
_EDITABLE = (roles.SR, roles.SR_COMPREHENSIVE)  # where an area beside each outline belongs to the form
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


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A report's measurement groups by what they measure."""

    segments: dict[int, Dataset]
    findings: dict[int, Dataset]
    others: list[Dataset]


def split(result: Result, evidence: Evidence, segment_of: dict[str, int]) -> Groups:
    """Groups by their tracking UIDs; ``segment_of`` maps those of the segmentation to segment numbers.

    Raises GateRefused where a tracking UID is missing, or stands twice.
    """
    finding_of = {finding.told.tracking_uid: finding.told.number for finding in evidence.findings}
    found = Groups(segments={}, findings={}, others=[])
    seen = set()
    for group in groups(result):
        uid = tracking_uid(result, group)
        if uid in seen:
            raise result.refuse("tracking", "two measurement groups have the same tracking UID")
        seen.add(uid)
        if uid in segment_of:
            found.segments[segment_of[uid]] = group
        elif uid in finding_of:
            found.findings[finding_of[uid]] = group
        else:
            found.others.append(group)
    return found


def check_groups(result: Result, evidence: Evidence, found: Groups) -> None:
    """One group for each segment and each finding, and every group with its finding and algorithm."""
    for group in (*found.segments.values(), *found.findings.values(), *found.others):
        for name in (_FINDING, _ALGORITHM):
            if not list(children(group, name)):
                raise result.refuse("group", "a measurement group lacks its finding or its algorithm")
    if sorted(found.segments) != [spec.number for spec in evidence.manifest.output.segments]:
        raise result.refuse("tracking", "measurement groups and segments do not have the same tracking UIDs")
    if sorted(found.findings) != [finding.told.number for finding in evidence.findings]:
        raise result.refuse("tracking", "measurement groups and findings do not have the same tracking UIDs")
    for finding in evidence.findings:
        told, group = finding.told, found.findings[finding.told.number]
        said = [code_of(item, "ConceptCodeSequence") for item in children(group, _FINDING)]
        sites = [code_of(item, "ConceptCodeSequence") for item in children(group, _SITE)]
        if (told.name.value, told.name.scheme) not in said or sites != [(one.value, one.scheme) for one in told.site]:
            raise result.refuse("group", f"the group of finding {told.number} is about something else, or elsewhere")


def check_numbers(result: Result, evidence: Evidence, found: Groups) -> None:
    """Every measurement stands in the group of its segment or finding, and no number stands there beside them."""
    editable = result.role in _EDITABLE
    for kind, groups_ in (("segment", found.segments), ("finding", found.findings)):
        for number, group in groups_.items():
            expected = [item for item in evidence.measurements if getattr(item, kind) == number]
            items = [item for item in numbers(group) if not (editable and is_area(item))]
            if len(items) != len(expected):
                raise result.refuse("numbers", f"{kind} {number} has not as many numbers as were measured")
            for item, measurement in zip(items, expected, strict=True):
                if not _says(item, measurement):
                    raise result.refuse(
                        "numbers", f"{measurement.name.meaning} of {kind} {number} is not what was measured"
                    )


def check_statements(result: Result, evidence: Evidence, others: Sequence[Dataset]) -> None:
    """One group for each number that is of no segment and no finding, in their order, on its image or one of the input."""
    if len(others) != len(evidence.statements):
        raise result.refuse("tracking", "measurement groups are not one for each number")
    for group, expected in zip(others, evidence.statements, strict=True):
        _check_statement(result, evidence, group, [expected])
        images = [
            evidence.slice_at(target)
            for item in numbers(group)
            for place in item.get("ContentSequence") or ()
            for image in place.get("ContentSequence") or ()
            for target in image.get("ReferencedSOPSequence") or ()
        ]
        if len(images) != 1 or images[0] is None:
            raise result.refuse("no_outline", "a number does not lie on exactly one image of the input")
        if expected.sop_instance_uid and not _is(evidence, images[0], expected):
            raise result.refuse("no_outline", "a number about one image does not lie on it")


def check_data(result: Result, evidence: Evidence, others: Sequence[Dataset]) -> None:
    """The same in a report for programs: of a classification of single images, with the number of each and its image."""
    if len(others) != len(evidence.statements):
        raise result.refuse("tracking", "measurement groups are not one for each number")
    for group, expected in zip(others, evidence.statements, strict=True):
        each = [one for one in evidence.each if one.name == expected.name] or [expected]
        _check_statement(result, evidence, group, each)
        for item, one in zip(numbers(group), each, strict=True):
            images = [
                evidence.slice_at(target)
                for image in item.get("ContentSequence") or ()
                for target in image.get("ReferencedSOPSequence") or ()
            ]
            if one.sop_instance_uid and (len(images) != 1 or not _is(evidence, images[0], one)):
                raise result.refuse("no_outline", "a number about one image does not name it")


def outlined(others: Sequence[Dataset]) -> list[Dataset]:
    """Groups that hold an area and nothing else: outlines of segments."""
    return [group for group in others if numbers(group) and all(is_area(item) for item in numbers(group))]


def _is(evidence: Evidence, index: int | None, said: MeasurementResult) -> bool:
    return index is not None and (str(evidence.header(index).SOPInstanceUID), evidence.volume.frame_number(index)) == (
        said.sop_instance_uid,
        said.frame_number,
    )


def _check_statement(result: Result, evidence: Evidence, group: Dataset, expected: Sequence[MeasurementResult]) -> None:
    """Of a classification the number is the certainty of the group's finding, of a detection how many there are."""
    output = evidence.manifest.output
    name = expected[0].name.value, expected[0].name.scheme
    findings = {(spec.name.value, spec.name.scheme) for spec in output.findings}
    if [code_of(item, "ConceptCodeSequence") for item in children(group, _FINDING)] != [name]:
        raise result.refuse("group", "a measurement group is about another finding")
    concept = name if name not in findings else _QUANTITY if output.kind == "detection" else _CERTAINTY
    items = numbers(group)
    if len(items) != len(expected) or not all(
        _says(item, one, concept) for item, one in zip(items, expected, strict=True)
    ):
        raise result.refuse("numbers", f"{expected[0].name.meaning} is not what the model said")
    verdicts = [code_of(item, "ConceptCodeSequence") for item in children(group, _PRESENCE)]
    most = max(expected, key=lambda one: one.value)
    if verdicts != [(code.value, code.scheme) for code in most.verdict]:
        raise result.refuse("numbers", f"whether {expected[0].name.meaning} is present is not what the model said")


def check_segment_references(result: Result, segmentation: Result, found: dict[int, Dataset]) -> None:
    """Each group of a segment refers to its own segment of this result set's segmentation (TID 1411)."""
    for number, group in found.items():
        targets = [
            (target.get("ReferencedSOPInstanceUID"), target.get("ReferencedSegmentNumber"))
            for item in children(group, _SEGMENT)
            for target in item.get("ReferencedSOPSequence") or ()
        ]
        if targets != [(segmentation.dataset.SOPInstanceUID, number)]:
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
