"""What models say that paint nothing reaches the EHR too: probabilities of findings, and numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.domain.messages import Code, FindingResult, MeasurementResult, Outcome, from_json, to_json
from gateway.report import fhir
from gateway.report.content import narrative
from gateway.report.oru import build
from gateway.report.settings import FhirDestination
from tests.support.outcomes import outcome, report
from tests.unit.gateway.report.test_oru import observations, profile, written

PERCENT = Code(value="%", scheme="UCUM", meaning="percent")
YEARS = Code(value="a", scheme="UCUM", meaning="year")
BLEEDING = Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage")
INFARCT = Code(value="432504007", scheme="SCT", meaning="Cerebral infarction")
AGE = Code(value="BRAINAGE", scheme="99HILUM", meaning="Brain age")

CLASSIFICATION = (
    MeasurementResult(name=BLEEDING, value=87.5, unit=PERCENT, confidence="low", probability=True),
    MeasurementResult(name=INFARCT, value=0.4, unit=PERCENT, probability=True),
)
REGRESSION = (MeasurementResult(name=AGE, value=61.25, unit=YEARS),)


@pytest.mark.parametrize("said", [CLASSIFICATION, REGRESSION])
def test_every_number_is_an_observation(said: tuple[MeasurementResult, ...]) -> None:
    """In HL7 v2 as NM with its unit, in FHIR as a quantity, and in words for people."""
    made = outcome(segments=(), measurements=said)
    numeric = observations(written(made), "NM")
    wanted = [(_code(one), one.value, one.unit.value) for one in said]
    assert [(str(obx[3]).split("^")[0], float(str(obx[5])), str(obx[6]).split("^")[0]) for obx in numeric] == wanted
    found = json.loads(fhir.build(report(made), FhirDestination(kind="fhir", url="http://127.0.0.1/fhir")))
    quantities = [
        (entry["resource"]["code"]["coding"][0]["code"], entry["resource"]["valueQuantity"])
        for entry in found["entry"]
        if "valueQuantity" in entry["resource"]
    ]
    assert [(code, float(value["value"]), value["code"]) for code, value in quantities] == wanted
    words = " ".join(narrative(report(made)))
    assert all(one.name.meaning in words for one in said)


def _code(one: MeasurementResult) -> str:
    return f"PROB-SCT-{one.name.value}" if one.probability else one.name.value


def test_a_probability_is_not_the_finding() -> None:
    """Neither in code nor in words: a receiver that files by OBX-3 must not take 0.4 % for an infarct."""
    made = outcome(segments=(), measurements=CLASSIFICATION)
    site = profile(codes={"SCT|432504007": "INF^Infarct^99KIS", "99HILUM|PROB-SCT-1386000": "PICH^P(ICH)^99KIS"})
    raw = build(report(made), site).decode()
    assert "|432504007^" not in raw
    assert "^432504007^" not in raw
    assert "|NM|PROB-SCT-432504007^Probability of Cerebral infarction^99HILUM^111012^Certainty of Finding^DCM|" in raw
    assert "|NM|PICH^P(ICH)^99KIS^111012^Certainty of Finding^DCM|" in raw
    assert "|Probability of Cerebral infarction: 0.4 %|" in raw
    found = json.dumps(json.loads(fhir.build(report(made), FhirDestination(kind="fhir", url="http://127.0.0.1/fhir"))))
    assert '"code": "432504007"' not in found
    assert '"text": "Probability of Cerebral infarction"' in found


def test_how_sure_the_model_is_goes_with_its_number() -> None:
    """OBX-8 of the finding it is about, and of no other."""
    made = outcome(segments=(), measurements=CLASSIFICATION)
    assert [str(obx[8]) for obx in observations(written(made), "NM")] == ["AI-LOW", ""]
    assert build(report(made), profile())


NODULE = Code(value="27925004", scheme="SCT", meaning="Nodule")
LUNG = Code(value="39607008", scheme="SCT", meaning="Lung")
LEFT = Code(value="7771000", scheme="SCT", meaning="Left")
CERTAINTY = Code(value="111012", scheme="DCM", meaning="Certainty of Finding")
COUNT = Code(value="{findings}", scheme="UCUM", meaning="findings")
PRESENT = Code(value="52101004", scheme="SCT", meaning="Present")


def detection() -> Outcome:
    """Two nodules, the second a part of segment 1."""
    first = FindingResult(
        number=1, label="Nodule 1", name=NODULE, tracking_uid="2.25.5", site=(LUNG,), laterality=(LEFT,)
    )
    second = FindingResult(number=2, label="Nodule 2", name=NODULE, tracking_uid="2.25.6", segment=1)
    said = (
        MeasurementResult(name=NODULE, value=2.0, unit=COUNT),
        *(MeasurementResult(name=CERTAINTY, value=90.0, unit=PERCENT, finding=number) for number in (1, 2)),
    )
    return outcome(segments=(), findings=(first, second), measurements=said)


def test_each_finding_has_its_own_sub_id() -> None:
    """OBX-4: the finding, and all that was measured on it."""
    made = detection()
    coded = [obx for obx in observations(written(made), "CE") if "Nodule" in str(obx[3])]
    assert [(str(obx[4]), str(obx[5]).split("^")[1]) for obx in coded] == [("1", "Present"), ("1.2", "Present")]
    numeric = observations(written(made), "NM")
    assert [(str(obx[4]), str(obx[5])) for obx in numeric] == [("", "2"), ("1", "90"), ("1.2", "90")]
    assert "Certainty of Finding of Nodule 2: 90 %" in list(narrative(report(made)))
    assert from_json(Outcome, to_json(made)) == made


def test_findings_are_observations_with_their_site() -> None:
    """In FHIR: one for each finding and each number, under different identifiers."""
    found = json.loads(fhir.build(report(detection()), FhirDestination(kind="fhir", url="http://127.0.0.1/fhir")))
    resources = [entry["resource"] for entry in found["entry"] if entry["resource"]["resourceType"] == "Observation"]
    assert [one["code"]["text"] for one in resources] == [
        "Nodule 1", "Nodule 2", "Nodule, how many", "Certainty of Finding of Nodule 1", "Certainty of Finding of Nodule 2",
    ]  # fmt: skip
    assert resources[0]["bodySite"]["text"] == resources[3]["bodySite"]["text"] == "Lung, Left"
    assert len({json.dumps(one["identifier"]) for one in resources}) == 5


def test_a_verdict_stands_beside_its_probability() -> None:
    """Present by the model's threshold: coded in HL7 v2, an interpretation in FHIR, a word in the narrative."""
    made = outcome(segments=(), measurements=(replace(CLASSIFICATION[0], verdict=(PRESENT,)),))
    (coded,) = [obx for obx in observations(written(made), "CE") if BLEEDING.value in str(obx[3])]
    assert (str(coded[4]), str(coded[5]).split("^")[0]) == ("presence", PRESENT.value)
    found = fhir.build(report(made), FhirDestination(kind="fhir", url="http://127.0.0.1/fhir")).decode()
    assert '"interpretation"' in found
    assert any("(present)" in sentence for sentence in narrative(report(made)))
