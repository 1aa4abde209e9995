"""Whose result is it? Patient, study and order must be those of the images, to the letter."""

from __future__ import annotations

from pydicom.dataset import Dataset

from workers.verify.evidence import Evidence, Result, code_of, elements

PATIENT = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
STUDY = (
    "StudyInstanceUID", "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
PROCESSING_ALGORITHM = ("1630", "99IHE")  # IHE RAD AIR


def check_images_agree(evidence: Evidence) -> None:
    """The images are all of one patient, study, series and frame of reference; those of priors of the patient's other studies."""
    images = Result(role="images", dataset=evidence.volume.first)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if len({_text(header, keyword).strip() for header in evidence.volume.headers if header is not None}) > 1:
            raise images.refuse("mixed_images", f"{keyword} is not the same in all of them")
    for companion in evidence.volume.companions:
        for keyword in ("PatientID", "StudyInstanceUID"):
            own = _text(evidence.volume.first, keyword).strip()
            other = companion.prior and keyword == "StudyInstanceUID"
            if any((_text(header, keyword).strip() == own) == other for header in companion.headers):
                raise images.refuse("mixed_images", f"{keyword} of {companion.name} is not that of the other images")


def check_patient_and_study(result: Result, evidence: Evidence) -> None:
    """Same text as the images, in every group of every name; an attribute the images lack is empty."""
    for keyword in (*PATIENT, *STUDY):
        if _text(result.dataset, keyword) != _text(evidence.volume.first, keyword):
            raise result.refuse("identity", f"{keyword} is not that of the images")


def check_character_set(result: Result, evidence: Evidence) -> None:
    """Names that are not ASCII are in ISO_IR 192 (PS3.5 6.1.2.3), or undeclared just as in the images."""
    names = [str(element.value) for element in elements(result.dataset, ("PN",)) if element.value]
    if all(name.isascii() for name in names):
        return
    declared = result.dataset.get("SpecificCharacterSet") or ""
    if declared != "ISO_IR 192" and declared != (evidence.volume.first.get("SpecificCharacterSet") or ""):
        raise result.refuse("character_set", "a name is not ASCII and the character set is not ISO_IR 192")


def check_own_uids(result: Result, evidence: Evidence) -> None:
    """A result never takes an image's place, nor hides in its series."""
    if str(result.dataset.SOPInstanceUID) in {file.sop_instance_uid for file in evidence.order.inputs}:
        raise result.refuse("uid_reused", "SOP Instance UID is that of an image")
    if str(result.dataset.SeriesInstanceUID) in evidence.series_of.values():
        raise result.refuse("uid_reused", "Series Instance UID is that of the images")


def check_algorithm(result: Result, _: Evidence) -> None:
    """IHE AIR: the algorithm is contributing equipment, with the UID of its build."""
    for item in result.dataset.get("ContributingEquipmentSequence") or ():
        if code_of(item, "PurposeOfReferenceCodeSequence") == PROCESSING_ALGORITHM and item.get("DeviceUID"):
            return
    raise result.refuse("equipment", "the algorithm is not named as contributing equipment")


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value)
