"""Reports on a FHIR R4 server that is not ours: what it makes of each edition, read back by search.

It validates every resource by FHIR's own definitions (cardinalities, types, invariants), so whatever it has kept is valid R4.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.domain.ids import digest
from gateway.domain.job import ReportKind, Verdict
from gateway.domain.study import Patient
from gateway.report.content import ReportContent
from gateway.report.fhir import build
from gateway.report.fhir_client import FhirEhr
from gateway.report.settings import FhirDestination
from tests.support.medplum import Medplum, Resource, medplum_server
from tests.support.outcomes import PATIENT, outcome, report, source
from tests.unit.gateway.report.test_profiles import EMPTY, FLAGGED, PDF, ordered, with_pdf
from tests.unit.gateway.report.test_refused import CONTENT as REFUSED

SYSTEM = "urn:oid:1.2.3"
NAME = "Ye^Xiaoming=葉^小明"


@pytest.fixture(scope="module")
def server() -> Iterator[Medplum]:
    """One server for all; each test has a patient of its own."""
    with medplum_server() as found:
        yield found


def to(server: Medplum, **more: object) -> FhirDestination:
    settings = {"kind": "fhir", "url": server.url, "timeout": "10s", "patient": "create", "patient_system": SYSTEM}
    return FhirDestination.model_validate({**settings, **more})


def about(patient_id: str, content: ReportContent, control_id: str = "") -> ReportContent:
    """A report about a patient and a study of a test's own."""
    patient = replace(PATIENT, patient_id=patient_id, name=NAME)
    header = replace(content.source, patient=patient, study_uid=f"1.2.840.99.{sum(patient_id.encode())}")
    number = control_id or f"{patient_id}-{content.edition.number}"
    return replace(content, source=header, control_id=number)


@pytest.fixture(scope="module")
def ehr(server: Medplum) -> FhirEhr:
    return FhirEhr(to(server))


def report_of(server: Medplum, content: ReportContent) -> Resource:
    (found,) = server.search("DiagnosticReport", f"identifier=urn:hilum:report|{content.filler_number}")
    return found


def results(server: Medplum, found: Resource) -> list[Resource]:
    return [server.read(item["reference"]) for item in found["result"]]


def test_from_preliminary_to_cancelled(server: Medplum, ehr: FhirEhr) -> None:
    """A retry makes nothing twice; each edition takes the place of the one before, under the same id; the PDF is whole."""
    first = about("P-LIFE", with_pdf(ordered(report(FLAGGED))))
    for _ in range(2):
        assert ehr.send(build(first, to(server))).verdict is Verdict.ACCEPTED
    found = report_of(server, first)
    assert found["status"] == "preliminary"
    (patient,) = server.search("Patient", f"identifier={SYSTEM}|P-LIFE")
    assert [name["family"] for name in patient["name"]] == ["Ye", "葉"]
    subject = f"Patient/{patient['id']}"
    counts = {kind: len(server.search(kind, f"subject={subject}")) for kind in ("DiagnosticReport", "Observation")}
    assert counts == {"DiagnosticReport": 1, "Observation": len(found["result"])}
    assert found["subject"]["reference"] == subject
    study = server.read(found["imagingStudy"][0]["reference"])
    assert study["identifier"][0]["value"] == f"urn:oid:{first.source.study_uid}"
    values = [one["valueQuantity"] for one in results(server, found) if "valueQuantity" in one]
    assert [(value["value"], value["code"]) for value in values] == [(1234.5, "mL")]
    assert all(
        server.read(one["device"]["reference"])["version"] == [{"value": "1.2"}] for one in results(server, found)
    )

    final = about(
        "P-LIFE", with_pdf(ordered(report(FLAGGED, kind=ReportKind.FINAL, number=2, by="Dr. A", verified=True)))
    )
    amended = about(
        "P-LIFE", with_pdf(ordered(report(FLAGGED, kind=ReportKind.CORRECTED, number=3, reason="A merge.")))
    )
    cancelled = about(
        "P-LIFE", with_pdf(ordered(report(FLAGGED, kind=ReportKind.CANCELLED, number=4, reason="Wrong.")))
    )
    for edition, status in ((final, "final"), (amended, "amended"), (cancelled, "entered-in-error")):
        for _ in range(2):
            assert ehr.send(build(edition, to(server))).verdict is Verdict.ACCEPTED
        again = report_of(server, edition)
        assert (again["id"], again["status"]) == (found["id"], status)
        assert {one["status"] for one in results(server, again)} == {status}
        (document,) = server.search("DocumentReference", f"identifier=urn:hilum:document|{edition.filler_number}")
        assert base64.b64decode(document["content"][0]["attachment"]["data"]) == PDF
        assert len(server.search("Observation", f"subject={subject}")) == len(found["result"])
        assert len(server.search("Provenance", f"_tag=urn:hilum:edition|{edition.control_id}")) == 1
        if status == "final":
            assert again["resultsInterpreter"] == [{"display": "Dr. A"}]
    assert not any("valueQuantity" in one or "valueCodeableConcept" in one for one in results(server, again))


@pytest.mark.parametrize(
    "content",
    [
        report(EMPTY),
        report(outcome(measurements=(), segments=())),
        report(outcome(source_series_uid="", objects=())),
        report(header=source(Patient(patient_id="x"), study_date="", modality="", accession_number="")),
        REFUSED,
    ],
    ids=["nothing found", "no result", "no object", "bare header", "refused"],
)
def test_whatever_the_result_it_is_valid(server: Medplum, ehr: FhirEhr, content: ReportContent) -> None:
    """Also where little is known, and where the patient is named by identifier alone."""
    message = build(about(f"P-{digest(repr(content))[:12]}", content), to(server, patient="logical"))
    assert ehr.send(message).verdict is Verdict.ACCEPTED


def test_a_newer_result_leaves_nothing_of_the_older_one_in_force(server: Medplum, ehr: FhirEhr) -> None:
    """More images have come, and a structure is not found any more: its observation is there, entered in error."""
    older = about("P-NEWER", report(EMPTY))
    newer = about("P-NEWER", replace(report(), supersedes=True, replaced=(EMPTY,)), "P-NEWER-second")
    for content in (older, newer):
        assert ehr.send(build(content, to(server))).verdict is Verdict.ACCEPTED
    (patient,) = server.search("Patient", f"identifier={SYSTEM}|P-NEWER")
    found = server.search("Observation", f"subject=Patient/{patient['id']}")
    kept = {item["reference"] for item in report_of(server, newer)["result"]}
    statuses = {f"Observation/{one['id']}" in kept: one["status"] for one in found}
    assert len(found) == len(kept) + 1
    assert statuses == {True: "preliminary", False: "entered-in-error"}


def test_what_it_refuses_is_a_dead_letter(server: Medplum, ehr: FhirEhr) -> None:
    """A resource that is not valid R4: the server says so, and the same is not tried again."""
    bundle = json.loads(build(about("P-BAD", report()), to(server)))
    for entry in bundle["entry"]:
        if entry["resource"]["resourceType"] == "Observation":
            entry["resource"]["status"] = ["preliminary"]
    receipt = ehr.send(json.dumps(bundle).encode())
    assert receipt.verdict is Verdict.REJECTED
    assert "answered 400" in receipt.answer


def test_echo(ehr: FhirEhr) -> None:
    """`hilum check` reads what it can do."""
    assert "FHIR 4.0.1" in ehr.echo()
