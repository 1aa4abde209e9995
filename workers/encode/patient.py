"""Patient and study of a result: exactly those of the images it was made from."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from workers.encode.frames import shallow

# A PACS matches these to find patient, study and order: copied as they are, even where the source wrote them wrongly.
_EXACT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate", "PatientBirthTime",
    "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "TimezoneOffsetFromUTC",
)  # fmt: skip
# PS3.3 C.7.1.1, C.7.2.1: type 2, so present and empty where the source has none.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
# Useful, but no reason to make a result invalid: left out where the source's value is.
_IF_VALID = (
    "IssuerOfPatientIDQualifiersSequence", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "IssuerOfAccessionNumberSequence",
    "StudyDescription", "ProcedureCodeSequence", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID", "LongitudinalTemporalInformationModified",
)  # fmt: skip
# What pydicom may raise on a value that is not what its VR says; where it does the attribute counts as absent.
_BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError)
_TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}


def copy_patient_and_study(header: Dataset, result: Dataset) -> None:
    """Puts the source's patient and study into a finished object, and settles its character set (PS3.5 6.1).

    Non-ASCII text anywhere makes it ISO_IR 192, with every group of every name kept. Where the source's identity is not
    ASCII and no character set is declared, its bytes are passed on as they are, undeclared: any guess could turn a name
    into another one.
    """
    exact = [_detached(element) for keyword in _EXACT if (element := _element(header, keyword)) is not None]
    declared = _declares_character_set(header)
    undeclared = not declared and not all(map(_is_ascii, exact))
    for keyword in _REQUIRED:
        setattr(result, keyword, None)
    if undeclared:
        _fold_to_ascii(result)
    for element in (*exact, *_optional(header, any_text=declared)):
        result.add(element)
    if undeclared or all(map(_is_ascii, _text_elements(result))):
        result.pop("SpecificCharacterSet", None)
    else:
        result.SpecificCharacterSet = "ISO_IR 192"


def _optional(header: Dataset, *, any_text: bool) -> Iterator[DataElement]:
    """Valid attributes; without ``any_text`` only those in ASCII, since nobody knows what the others say."""
    for keyword in _IF_VALID:
        element = _element(header, keyword)
        if element is not None and not element.is_empty and _is_valid(element):
            copied = _detached(element)
            if any_text or all(map(_is_ascii, _within(copied))):
                yield copied


def _element(header: Dataset, keyword: str) -> DataElement | None:
    try:
        return header[keyword]
    except _BROKEN:
        return None


def _detached(element: DataElement) -> DataElement:
    result = copy.deepcopy(element)
    if result.VR == "SQ":
        for item in result.value:
            for nested in item.iterall():  # decodes what is still raw, in the item's own character set
                nested.value = nested.value
            item.pop("SpecificCharacterSet", None)
    return result


def _is_valid(element: DataElement) -> bool:
    if element.keyword and dictionary_VR(element.tag) != element.VR:
        return False
    if element.VR == "SQ":
        codes = element.keyword.endswith("CodeSequence")
        return all((not codes or _is_code(item)) and all(map(_is_valid, item)) for item in element.value)
    try:
        for value in _values(element):
            validate_value(element.VR, str(value) if element.VR in _TEXT else value, config.RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _is_code(item: Dataset) -> bool:
    """PS3.3 8.8: a meaning, and a value by a scheme or one that needs none."""
    by_scheme = (item.get("CodeValue") or item.get("LongCodeValue")) and item.get("CodingSchemeDesignator")
    return bool(item.get("CodeMeaning") and (by_scheme or item.get("URNCodeValue")))


def _within(element: DataElement) -> Iterator[DataElement]:
    if element.VR != "SQ":
        return iter([element])
    return (nested for item in element.value for nested in _text_elements(item))


def _values(element: DataElement) -> list[object]:
    if element.value is None:
        return []
    return list(element.value) if element.VM > 1 else [element.value]


def _text_elements(dataset: Dataset) -> Iterator[DataElement]:
    for tag in shallow(dataset):
        element = dataset[tag]
        if element.VR == "SQ":
            yield from (nested for item in element.value for nested in item.iterall() if nested.VR in _TEXT)
        elif element.VR in _TEXT:
            yield element


def _is_ascii(element: DataElement) -> bool:
    return all(str(value).isascii() for value in _values(element))


def _declares_character_set(header: Dataset) -> bool:
    declared = header.get("SpecificCharacterSet") or ""
    return any(
        str(term).strip() not in ("", "ISO_IR 6") for term in ([declared] if isinstance(declared, str) else declared)
    )


def _fold_to_ascii(dataset: Dataset) -> None:
    for element in _text_elements(dataset):
        if isinstance(element.value, str):
            element.value = element.value.encode("ascii", "replace").decode("ascii")
