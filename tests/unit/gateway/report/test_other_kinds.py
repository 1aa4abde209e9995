"""What models say that paint nothing reaches the EHR too: probabilities of findings, and numbers."""

from __future__ import annotations

import json

import pytest

from gateway.domain.messages import Code, MeasurementResult
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
