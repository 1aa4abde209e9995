"""An input that takes a series of an earlier study of the patient: which one, and what happens without one."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from gateway.bundle.manifest import Manifest
from gateway.domain.ids import StudyUID
from gateway.domain.prior import same_patient
from gateway.domain.study import Patient, Study
from gateway.route.priors import find_priors
from gateway.route.selection import Decision, Model, decide, needed
from tests.support.received import STUDY
from tests.unit.gateway.route.test_inputs import T1, both, series
from tests.unit.gateway.route.test_selection import key, manifest, rule

JANE = Patient(patient_id="P1", issuer="H", name="Doe^Jane", birth_date="19600101")


def study(number: int, date: str, *descriptions: str, patient: Patient = JANE, **more: Any) -> Study:
    """A study of three slices for each description."""
    uid = f"{STUDY}.{number}00"
    return Study.of(
        StudyUID(uid),
        [
            item
            for at, text in enumerate(descriptions or ("T2",), start=1)
            for item in series(number * 10 + at, text, study=uid, study_date=date, patient=patient, **more)
        ],
    )


def found(*held: Study, now: Study | None = None) -> list[str]:
    current = now or study(9, "20260102", "T1", study_time="0930")
    return [one.uid for one in find_priors(current, [current, *held]).studies]


def run(model: Model, *held: Study, now: Study | None = None) -> Decision:
    current = now or study(9, "20260102", "T1")
    asked = rule(run=(model.name,))
    return decide(current, [asked], {model.name: model}, key, priors=find_priors(current, held))


def test_the_newest_first() -> None:
    """By date, then time; what is later, or not certainly earlier, is no prior."""
    older, newer, same_day = study(1, "20240101"), study(2, "20251231"), study(3, "2026.01.02", study_time="09:29:59")
    later, as_soon = study(4, "20260103"), study(5, "20260102", study_time="093000.5")
    dateless, timeless = study(6, ""), study(7, "20260102")
    assert found(older, later, newer, as_soon, same_day, dateless, timeless) == [same_day.uid, newer.uid, older.uid]
    assert found(older, now=study(9, "", "T1")) == []


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"name": "DOE^JANE^M", "birth_date": ""}, True),
        ({"patient_id": "P2"}, False),
        ({"issuer": "I"}, False),
        ({"issuer": ""}, False),
        ({"name": "Roe^Richard"}, False),
        ({"birth_date": "19610101"}, False),
    ],
)
def test_the_same_patient(other: dict[str, str], same: bool) -> None:
    """By id and issuer, with nothing that speaks against it; names may be written otherwise."""
    patient = Patient(**(vars(JANE) | other))
    assert bool(found(study(1, "20240101", patient=patient))) is same


def test_nobody_is_the_prior_of_nobody() -> None:
    """Two empty Patient IDs are not the same."""
    anonymous = Patient(name="Anonymous")
    assert not same_patient(anonymous, anonymous)
    current = study(9, "20260102", "T1", patient=anonymous)
    priors = find_priors(current, [study(1, "20240101", patient=anonymous)])
    assert (priors.studies, priors.why) == (
        (), "the images have no Patient ID by which an earlier study could be found"
    )  # fmt: skip


def test_a_study_of_two_patients_is_no_prior() -> None:
    """One image of somebody else is enough."""
    mixed = study(1, "20240101")
    stranger = study(1, "20240101", "T2", patient=Patient(patient_id="P2", issuer="H"))
    assert found(Study.of(mixed.uid, [*mixed.instances[:2], *stranger.instances[2:]])) == []


def test_the_series_of_the_newest_that_has_one() -> None:
    """By the input's own selectors, over the earlier study; another prior is another input."""
    model = both(study="prior")
    wrong, right, older = study(3, "20251231", "DWI"), study(2, "20250101", "DWI", "T2"), study(1, "20240101")
    decision = run(model, older, right, wrong)
    (job,) = decision.jobs
    assert [(one.name, one.study_uid) for one in job.inputs] == [("t1", None), ("t2", right.uid)]
    assert job.series == ((job.study_uid, f"{STUDY}.91"), (right.uid, f"{STUDY}.22"))
    assert (job.study_uid, job.prior_studies) == (f"{STUDY}.900", {right.uid})
    assert f"t2 = 22 of the earlier study {right.uid}" in decision.reason
    (with_another,) = run(model, older).jobs
    assert with_another.id != job.id
    own = study(9, "20260102", "T1", "T2")
    assert run(model, now=own).jobs == (), "one of the study itself is no prior"


def test_a_study_is_not_asked_for_its_own_past() -> None:
    """An input of the study itself never takes an earlier series, and nobody waits for an earlier study."""
    assert run(both(), study(1, "20240101")).jobs == ()
    waits = type(rule())(**{**vars(rule(run=("two",))), "require_inputs": True})
    assert [each.input.name for _, each in needed(waits, {both().name: both(study="prior")})] == ["t1"]


def test_none_as_the_manifest_says() -> None:
    """Refused with the reason, or run without it and flagged."""
    assert (
        "no series for the input t2 (no earlier study of this patient is held whole)" in run(both(study="prior")).reason
    )
    (job,) = run(both(study="prior", missing="zeros")).jobs
    assert (len(job.inputs), "no earlier study of this patient" in job.flags[0]) == (1, True)
    unfit = run(both(study="prior"), study(1, "20240101", "DWI"))
    assert "no series for the input t2 (the manifest's series selector says no)" in unfit.reason


def test_results_lie_on_the_study_itself() -> None:
    """The first input cannot be a prior."""
    data = manifest().model_dump(mode="json", exclude={"input", "inputs"})
    with pytest.raises(pydantic.ValidationError, match="the first input is of the study itself"):
        Manifest.model_validate(data | {"inputs": [T1 | {"study": "prior"}, {"name": "b", "modality": ["MR"]}]})
