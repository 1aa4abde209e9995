"""The report that there is no result, in every form that an EHR may take."""

from __future__ import annotations

import json

import pytest

from gateway.domain import refusals
from gateway.domain.errors import MessageInvalid
from gateway.domain.job import ReportKind
from gateway.report import fhir, mdm, oru
from gateway.report.settings import VERSIONS, FhirDestination, Hl7Destination
from tests.support.outcomes import outcome, report, result_object

REFUSED = outcome(
    status="refused",
    reason_code="envelope_noise",
    reason="not processed: the images are not such as the model was made for: noise of 30 %",
    refusal=refusals.reasons("envelope_noise"),
    segments=(),
    measurements=(),
    objects=(result_object("sr", "2.25.9"),),
)
CONTENT = report(REFUSED, kind=ReportKind.REFUSED, number=0)


@pytest.mark.parametrize("version", VERSIONS)
def test_hl7(version: str) -> None:
    """The codes and the sentence, no number, and the report that the archive has."""
    profile = Hl7Destination(kind="hl7", host="ehr", port=1, version=version)
    text = oru.build(CONTENT, profile).decode()
    for said in ("111225^Not Attempted^DCM", "113001^Rejected for Quality", "ENV-NOISE", "2.25.9"):
        assert said in text
    assert "Not processed: the images are not such as the model was made for: noise of 30 %." in text
    assert "|NM|" not in text
    document = mdm.build(CONTENT, profile.model_copy(update={"message": "mdm"})).decode()
    assert "MDM^T02" in document
    assert "Not processed" in document


def test_fhir() -> None:
    """A report that is cancelled, with an observation that has a reason and no value; a result replaces both."""
    bundle = json.loads(fhir.build(CONTENT, FhirDestination(kind="fhir", url="http://ehr.example.org/fhir")))
    found = {entry["resource"]["resourceType"]: entry["resource"] for entry in bundle["entry"]}
    assert found["DiagnosticReport"]["status"] == found["Observation"]["status"] == "cancelled"
    assert [code["code"] for code in found["Observation"]["dataAbsentReason"]["coding"]] == [
        "not-performed", "111225", "113001", "ENV-NOISE",
    ]  # fmt: skip
    later = json.loads(
        fhir.build(report(follows=True), FhirDestination(kind="fhir", url="http://ehr.example.org/fhir"))
    )
    methods = {entry["resource"]["resourceType"]: entry["request"]["method"] for entry in later["entry"]}
    assert methods["DiagnosticReport"] == "PUT"
    observations = [entry["resource"] for entry in later["entry"] if entry["resource"]["resourceType"] == "Observation"]
    refused = [item for item in observations if item["identifier"][0]["system"] == "urn:hilum:refusal"]
    assert [(item["status"], "dataAbsentReason" in item) for item in refused] == [("entered-in-error", False)]


def test_a_refusal_is_no_result() -> None:
    """Neither can be reported as the other."""
    with pytest.raises(MessageInvalid):
        report(REFUSED)
    with pytest.raises(MessageInvalid):
        report(outcome(), kind=ReportKind.REFUSED)
