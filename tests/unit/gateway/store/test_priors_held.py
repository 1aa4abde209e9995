"""Which earlier studies of a patient the ledger gives, and what a job that takes one of them holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.domain.context import StudyContext
from gateway.domain.ids import SeriesUID, StudyUID
from gateway.domain.job import JobDraft, NamedSeries
from gateway.domain.study import Patient
from gateway.store.ledger import SqlLedger
from tests.support.ledgers import draft, make_ledger
from tests.support.received import STUDY, instance

EARLIER = StudyUID(f"{STUDY}.9")


@pytest.fixture
def ledger(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = make_ledger(tmp_path)
    yield made
    made.close()


def store(ledger: SqlLedger, study: str, *numbers: int, patient: str = "P1") -> None:
    for number in numbers:
        more = {"study_date": "20250102", "series_number": "4", "patient": Patient(patient_id=patient)}
        ledger.add_instance(instance(number, study=study, series=f"{study}.1", **more))


def revision(ledger: SqlLedger, study: str) -> int:
    return next(int(row["revision"]) for row in ledger.list_studies() if row["uid"] == study)


def settle(ledger: SqlLedger, study: str, *jobs: JobDraft, flags: tuple[str, ...] = ()) -> list[str]:
    ledger.release(StudyUID(study), revision(ledger, study), "quiet", flags)
    return list(ledger.route(StudyUID(study), revision(ledger, study), jobs, "r"))


def held(ledger: SqlLedger) -> list[str]:
    return [one.uid for one in ledger.whole_studies({"P1"})]


def test_only_whole_studies(ledger: SqlLedger) -> None:
    """Not one that is open, was released with a doubt, is quarantined, or whose patient is questioned."""
    store(ledger, EARLIER, 1)
    store(ledger, f"{STUDY}.8", 1, patient="P2")
    settle(ledger, f"{STUDY}.8")
    assert held(ledger) == []
    settle(ledger, EARLIER)
    assert held(ledger) == [EARLIER]
    assert ledger.whole_studies({""}) == []
    doubt = StudyContext(patient=Patient(), mismatch="order and images do not agree: another patient name")
    ledger.link(EARLIER, doubt, 0)
    assert held(ledger) == []
    ledger.waive(EARLIER)
    assert held(ledger) == [EARLIER]
    store(ledger, EARLIER, 2)
    assert held(ledger) == []
    settle(ledger, EARLIER, flags=("The study may be incomplete.",))
    assert held(ledger) == []
    store(ledger, EARLIER, 3)
    ledger.quarantine_study(EARLIER, revision(ledger, EARLIER), "two patients")
    assert held(ledger) == []


def test_a_job_holds_the_prior(ledger: SqlLedger) -> None:
    """Its images go in with the others, people are told whence, and a prior that changed meanwhile is chosen anew."""
    store(ledger, EARLIER, 1, 2)
    settle(ledger, EARLIER)
    store(ledger, STUDY, 1)
    own = SeriesUID(f"{STUDY}.1")
    before = NamedSeries(name="before", series_uid=SeriesUID(f"{EARLIER}.1"), study_uid=EARLIER)
    inputs = (NamedSeries(name="now", series_uid=own), before)
    job = dataclasses.replace(draft(series=own), inputs=inputs)
    store(ledger, EARLIER, 3)
    assert settle(ledger, STUDY, job) == [], "it is open again"
    settle(ledger, EARLIER)
    assert settle(ledger, STUDY, job) == [job.id]
    given = [item.header.study_uid for item in ledger.input_instances(job.id)]
    assert sorted(given) == [STUDY, EARLIER, EARLIER, EARLIER]
    assert ledger.job(job.id).draft.inputs == inputs
    (told,) = ledger.explain(STUDY)["priors"]
    assert (told["input"], told["study_uid"], told["study_date"], told["series_number"]) == (
        "before", EARLIER, "20250102", "4"
    )  # fmt: skip
    assert ledger.explain(EARLIER)["priors"] == []
