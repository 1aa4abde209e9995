"""What searches and retrievals find of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.domain.archive import Held, Search
from gateway.domain.ids import JobId, StudyUID
from gateway.domain.states import JobState
from gateway.store import schema
from gateway.store.engine import writing
from gateway.store.ledger import SqlLedger
from tests.support.ledgers import draft, make_ledger, outcome
from tests.support.received import STUDY, header, instance

SHOWN = {JobState.READY, JobState.DELIVERING, JobState.DELIVERED, JobState.UNDELIVERED}
RESULT = "1.9.1"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    made = make_ledger(tmp_path)
    yield made
    made.close()


def made_result(ledger: SqlLedger) -> JobId:
    """A study with one image and a job's result, which is indexed."""
    ledger.add_instance(instance(1))
    (record,) = ledger.open_studies()
    ledger.release(record.uid, record.revision, "quiet")
    ledger.route(record.uid, record.revision, [draft(1)], "r")
    claim = ledger.claim("w", 60)
    assert claim is not None
    ledger.commit(claim, outcome(claim.job.id))
    (found,) = ledger.unindexed()
    its = header(2, series="1.9", sop_instance_uid=RESULT, modality="SEG")
    ledger.index_results(found.job_id, [Held(header=its, file="f", size=1, sha256="s", job_id=found.job_id)])
    ledger.refresh_index()
    return found.job_id


@pytest.mark.parametrize("state", list(JobState))
def test_a_result_shows_only_while_nobody_holds_it_back(ledger: SqlLedger, state: JobState) -> None:
    """One that was quarantined or withdrawn is found by no search and by no retrieval; the images always are."""
    job = made_result(ledger)
    with writing(ledger.engine) as connection:
        connection.execute(update(schema.jobs).where(schema.jobs.c.id == job).values(state=state.value))
    found = [
        {one.header.sop_instance_uid for one in ledger.held(StudyUID(STUDY))},
        {one.header.sop_instance_uid for one in ledger.find_instances(Search())[0]},
        {one.header.series_uid for one in ledger.find_series(Search())[0]},
        {one.header.series_uid for study in ledger.find_studies(Search())[0] for one in study},
    ]
    assert [RESULT in found[0], RESULT in found[1], "1.9" in found[2], "1.9" in found[3]] == [state in SHOWN] * 4
    assert all(len(names) == 1 + (state in SHOWN) for names in found)


def test_a_result_that_is_made_anew_is_read_anew(ledger: SqlLedger) -> None:
    """Indexed, then held back and replayed: what is found afterwards is the second result, and nothing of the first."""
    job = made_result(ledger)
    with writing(ledger.engine) as connection:
        held_back = update(schema.jobs).where(schema.jobs.c.id == job)
        connection.execute(held_back.values(state=JobState.QUARANTINED.value))
    ledger.replay_job(job)
    claim = ledger.claim("w", 60)
    assert claim is not None
    ledger.commit(claim, outcome(claim.job.id))
    (found,) = ledger.unindexed()
    its = header(3, series="1.9", sop_instance_uid="1.9.2", modality="SEG")
    ledger.index_results(found.job_id, [Held(header=its, file="g", size=2, sha256="t", job_id=found.job_id)])
    results = [one for one in ledger.held(StudyUID(STUDY)) if one.header.modality == "SEG"]
    assert [(one.header.sop_instance_uid, one.file, one.sha256) for one in results] == [("1.9.2", "g", "t")]
    assert len([one for study in ledger.find_studies(Search())[0] for one in study]) == 2
