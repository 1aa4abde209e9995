"""Pictures, the PDF and the index: whole, of these images, unverified, and no patient where none must be."""

import dataclasses

import pytest

from tests.support.gate import ELSEWHERE, refusal
from tests.support.result_set import AXIAL, Case, result_set


def each(keyword, value):
    """A change that sets one attribute of the dataset."""
    return lambda dataset: setattr(dataset, keyword, value)


def _short(dataset):
    dataset.PixelData = dataset.PixelData[:-6]


def _two_sources(dataset):
    dataset.SourceImageSequence = [*dataset.SourceImageSequence] * 2


def _cut(dataset):
    dataset.EncapsulatedDocument = dataset.EncapsulatedDocument[:-200]
    dataset.EncapsulatedDocumentLength = len(dataset.EncapsulatedDocument)


def _lost_source(dataset):
    del dataset.SourceInstanceSequence[0]


def _other_title(dataset):
    dataset.ConceptNameCodeSequence[0].CodeValue = "113018"


def _lost_reference(dataset):
    del dataset.ContentSequence[-1]


def _no_images(dataset):
    images = {"1.2.840.10008.5.1.4.1.1.4"}
    dataset.ContentSequence = [
        item
        for item in dataset.ContentSequence
        if not any(target.ReferencedSOPClassUID in images for target in item.get("ReferencedSOPSequence", ()))
    ]


def _other_study(dataset):
    dataset.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = ELSEWHERE


def _other_series(dataset):
    dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[-1].SeriesInstanceUID = ELSEWHERE


SPOILED = {
    ("sc", "pixel data too short"): (_short, "pixels"),
    ("sc", "grey"): (each("PhotometricInterpretation", "YBR_FULL"), "form"),
    ("sc", "two sources"): (_two_sources, "no_source"),
    ("sc", "no source"): (each("SourceImageSequence", []), "no_source"),
    ("sc", "said to be measurable"): (each("PixelSpacing", [1, 1]), "annotation"),
    ("sc", "said to name the patient"): (each("BurnedInAnnotation", "YES"), "annotation"),
    ("sc", "said to be verified"): (each("SeriesDescription", "Liver"), "status"),
    ("pdf", "cut off"): (_cut, "document"),
    ("pdf", "no PDF"): (each("EncapsulatedDocument", b"MZ" * 500), "document"),
    ("pdf", "other type"): (each("MIMETypeOfEncapsulatedDocument", "text/xml"), "form"),
    ("pdf", "verified"): (each("VerificationFlag", "VERIFIED"), "status"),
    ("pdf", "titled as verified"): (each("DocumentTitle", "Report"), "status"),
    ("pdf", "a source lost"): (_lost_source, "no_source"),
    ("ko", "other title"): (_other_title, "template"),
    ("ko", "an object lost"): (_lost_reference, "index"),
    ("ko", "no images"): (_no_images, "index"),
    ("ko", "evidence of another study"): (_other_study, "unknown_study"),
    ("ko", "evidence in another series"): (_other_series, "unknown_series"),
}


@pytest.mark.parametrize(("role", "name"), SPOILED)
def test_spoiled(whole, role, name):
    """Each is refused by the rule for it."""
    change, code = SPOILED[role, name]
    assert refusal(whole.changed(role, change)) == code


@pytest.mark.parametrize("role", ["sc", "pdf", "ko", "pm"])
@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID"])
def test_another_patient_or_study(whole, role, keyword):
    """Every kind of object is held to the images' identity."""
    assert refusal(whole.changed(role, each(keyword, "1.2.3"))) == "identity"


@pytest.mark.parametrize(
    ("role", "keyword", "text"),
    [
        ("seg", "SeriesDescription", "AI of HILUM-DEMO not verified"),
        ("sc", "SeriesDescription", "XiaoDong WANG, not verified"),
        ("pdf", "DocumentTitle", "wang^xiaodong not verified"),
        ("sr", "SeriesDescription", "Wang XiaoDong"),
        ("pm", "ContentDescription", "Xiaodong, Wang"),
    ],
)
def test_patient_in_a_description(whole, role, keyword, text):
    """Lists of series and file names are read by others than those who may know the patient."""
    assert refusal(whole.changed(role, each(keyword, text))) == "patient_text"


@pytest.mark.parametrize(
    "patient",
    [
        {"PatientID": "LIDC-IDRI-0001", "ClinicalTrialSubjectID": "LIDC-IDRI-0001", "ClinicalTrialProtocolID": "LIDC"},
        {"PatientID": "SUBJ-7", "PatientIdentityRemoved": "YES", "DeidentificationMethod": "renamed to SUBJ-7"},
        {"PatientID": "121071"},  # DCM, Finding
        {"PatientID": "SERIES", "PatientName": "Balls^Two"},
        {"PatientID": "1.2.3", "PatientName": "AI^Result"},
        {"PatientName": "An^In"},  # Korean; both are words of many a sentence
    ],
)
def test_patient_who_is_called_like_a_word_or_a_code(tmp_path, patient):
    """Collections for research have the patient's ID among the trial's attributes, and numbers of six digits are codes too."""
    found = result_set(tmp_path, Case(affine=AXIAL, attributes=patient, roles=("seg", "sr", "pdf", "ko")))
    found.verify()
    if "ClinicalTrialSubjectID" in patient:
        assert found.read("seg").ClinicalTrialSubjectID == patient["ClinicalTrialSubjectID"]
        spoiled = found.changed("seg", each("ClinicalTrialSiteName", "LIDC-IDRI-0001"))
        assert refusal(spoiled) == "patient_text"


def test_one_series_for_two_kinds(whole):
    """A viewer takes one object of a series for another."""
    series = whole.read("seg").SeriesInstanceUID
    objects = tuple(
        dataclasses.replace(one, series_uid=series) if one.role == "sr-data" else one for one in whole.objects
    )
    assert refusal(
        dataclasses.replace(whole, objects=objects).changed("sr-data", each("SeriesInstanceUID", series))
    ) == ("uid_reused")
