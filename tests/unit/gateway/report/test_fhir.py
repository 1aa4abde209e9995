"""The FHIR transaction: what it says, that every resource is valid, and that a retry changes nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fhir.resources.R4B.bundle import Bundle

from gateway.domain.errors import MessageInvalid
from gateway.domain.job import ReportKind
from gateway.domain.messages import Code, MeasurementResult
from gateway.domain.study import Patient
from gateway.report.content import ReportContent
from gateway.report.fhir import build
from gateway.report.settings import FhirDestination
from tests.support.fhir import Recorder, Resource
from tests.support.outcomes import PATIENT, RESULTS, VOLUME, outcome, report, source
from tests.unit.gateway.report.test_profiles import EMPTY, FLAGGED, PDF, ordered, with_pdf

GOLDEN = Path(__file__).parents[3] / "golden" / "fhir"


def profile(**more: object) -> FhirDestination:
    return FhirDestination.model_validate(
        {"kind": "fhir", "url": "http://127.0.0.1/fhir/", "time_zone": "Europe/Berlin", **more}
    )


def bundle(content: ReportContent | None = None, **more: object) -> Resource:
    found: Resource = json.loads(build(content or report(), profile(**more)))
    return found


def one(found: Resource, kind: str) -> Resource:
    (resource,) = [entry["resource"] for entry in found["entry"] if entry["resource"]["resourceType"] == kind]
    return dict(resource)


def test_golden() -> None:
    """The whole transaction of an ordered study with a PDF, to be read by people."""
    found = bundle(with_pdf(ordered(report(FLAGGED))), patient="create", patient_system="urn:oid:1.2.3")
    expected = (GOLDEN / "transaction.json").read_text(encoding="utf-8")
    assert json.dumps(found, indent=1, ensure_ascii=False) + "\n" == expected


@pytest.mark.parametrize("kind", RESULTS)
def test_every_edition_is_valid(kind: ReportKind) -> None:
    """By fhir.resources; status of the report, of its observations, and of the document."""
    found = bundle(with_pdf(report(EMPTY, kind=kind, number=2, by="Dr. A", verified=kind is ReportKind.FINAL)))
    Bundle.model_validate(found)
    status = {
        ReportKind.PRELIMINARY: "preliminary", ReportKind.FINAL: "final", ReportKind.CORRECTED: "amended",
        ReportKind.CANCELLED: "entered-in-error",
    }[kind]  # fmt: skip
    assert one(found, "DiagnosticReport")["status"] == status
    observations = [entry["resource"] for entry in found["entry"] if entry["resource"]["resourceType"] == "Observation"]
    assert {item["status"] for item in observations} == {status}
    assert len(observations) == 3
    has_value = any("valueQuantity" in item for item in observations)
    assert has_value == (kind is not ReportKind.CANCELLED)


def test_measurement_is_a_quantity_on_a_structure() -> None:
    """UCUM, SNOMED CT, the structure as body site, device and study by reference."""
    found = bundle()
    observation = next(entry["resource"] for entry in found["entry"] if "valueQuantity" in entry["resource"])
    assert observation["valueQuantity"] == {
        "value": 1234.5, "unit": "milliliter", "system": "http://unitsofmeasure.org", "code": "mL",
    }  # fmt: skip
    assert observation["code"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "118565006",
        "display": "Volume",
    }
    assert observation["bodySite"]["coding"][0]["code"] == "12738006"
    assert observation["effectiveDateTime"] == "2024-01-02T10:11:12+01:00"
    urls = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in found["entry"]}
    assert urls[observation["device"]["reference"]] == "Device"
    assert urls[observation["derivedFrom"][0]["reference"]] == "ImagingStudy"


def test_document_is_the_pdf() -> None:
    """With its bytes, and beside the report."""
    found = bundle(with_pdf(report()))
    document = one(found, "DocumentReference")
    assert base64.b64decode(document["content"][0]["attachment"]["data"]) == PDF
    assert document["docStatus"] == "preliminary"


def test_sent_twice_makes_nothing_twice_and_a_later_edition_replaces() -> None:
    """On a server that obeys conditional creates and updates."""
    server = Recorder()
    for _ in range(2):
        server.take(bundle(with_pdf(report())))
    first = {key: dict(value) for key, value in server.resources.items()}
    assert len(first) == 7
    assert server.of("DiagnosticReport")[0]["status"] == "preliminary"
    final = with_pdf(report(kind=ReportKind.FINAL, number=2, by="Dr. A", verified=True))
    for _ in range(2):
        server.take(bundle(replace(final, control_id="CTRL2")))
    assert len(server.of("DiagnosticReport")) == len(server.of("ImagingStudy")) == len(server.of("Device")) == 1
    assert len(server.of("Observation")) == 2
    assert len(server.of("Provenance")) == 2
    (result,) = server.of("DiagnosticReport")
    assert (result["status"], result["resultsInterpreter"]) == ("final", [{"display": "Dr. A"}])
    assert all(reference["reference"] in server.resources for reference in result["result"])


def test_a_new_result_in_place_of_an_old_one_replaces_its_report() -> None:
    """Late images: another job, the same report."""
    server = Recorder()
    server.take(bundle(report()))
    changed = outcome(
        measurements=(MeasurementResult(name=VOLUME, value=7.0, unit=Code(value="mL", scheme="UCUM", meaning="ml")),)
    )
    server.take(bundle(replace(report(changed), supersedes=True, control_id="CTRL2")))
    values = [item["valueQuantity"]["value"] for item in server.of("Observation") if "valueQuantity" in item]
    assert values == [7.0]


def test_what_a_newer_result_does_not_say_any_more_is_taken_back() -> None:
    """An observation that is left alone would still be found by whoever searches for the patient's."""
    server = Recorder()
    server.take(bundle(report(EMPTY)))
    newer = replace(report(outcome(measurements=())), supersedes=True, replaced=(EMPTY,), control_id="CTRL2")
    server.take(bundle(newer))
    assert [item["status"] for item in server.of("Observation")].count("entered-in-error") == 2
    assert not any("valueQuantity" in item for item in server.of("Observation"))
    (result,) = server.of("DiagnosticReport")
    kept = [server.resources[item["reference"]] for item in result["result"]]
    assert [item["status"] for item in kept] == ["preliminary"]


@pytest.mark.parametrize("how", ["search", "logical", "create"])
def test_patient_is_named_as_the_site_wants_it(how: str) -> None:
    """By search, by identifier, or made where there is none."""
    found = bundle(patient=how, patient_system="urn:oid:1.2.3")
    subject = one(found, "DiagnosticReport")["subject"]
    if how == "search":
        assert subject == {"reference": "Patient?identifier=urn:oid:1.2.3|P1"}
    elif how == "logical":
        assert subject["identifier"] == {"system": "urn:oid:1.2.3", "value": "P1"}
    else:
        patient = one(found, "Patient")
        assert patient["name"][0] == {"family": "Doe", "given": ["Jane", "Q"], "prefix": ["Dr"], "suffix": ["Jr"]}
        assert (patient["gender"], patient["birthDate"]) == ("female", "1970-01-02")


def test_text_cannot_leave_its_place() -> None:
    """Markup in a name of a model's label, and every script."""
    hostile = replace(outcome().segments[0], label="<script>&\"'", voxels=0)
    found = bundle(report(outcome(segments=(hostile,)), source(replace(PATIENT, name="葉^大雄"))), patient="create")
    page = base64.b64decode(one(found, "DiagnosticReport")["presentedForm"][0]["data"]).decode()
    assert "<script>" not in page
    assert one(found, "Patient")["name"][0]["family"] == "葉"


def test_what_is_not_valid_does_not_leave() -> None:
    """No patient, no number, no UCUM unit, a code that FHIR does not allow."""
    with pytest.raises(MessageInvalid, match="patient id"):
        bundle(report(header=source(Patient(name="Doe"))))
    for value, scheme in ((float("nan"), "UCUM"), (1.0, "99X")):
        unit = Code(value="mL", scheme=scheme, meaning="ml")
        with pytest.raises(MessageInvalid):
            bundle(report(outcome(measurements=(MeasurementResult(name=VOLUME, value=value, unit=unit),))))
    spaced = replace(outcome().segments[0], type=Code(value="two  blanks ", scheme="SCT", meaning="x"))
    with pytest.raises(MessageInvalid, match="not valid"):
        bundle(report(outcome(segments=(spaced,))))


if __name__ == "__main__":
    made = bundle(with_pdf(ordered(report(FLAGGED))), patient="create", patient_system="urn:oid:1.2.3")
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "transaction.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
