"""Evidence in the ledger: what others say, in order, with the study's story told only what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.evidence import PerformedStep, SeriesCount, SourceCount
from gateway.domain.ids import AssociationId, SeriesUID, StudyUID
from gateway.store.ledger import SqlLedger
from tests.support.ledgers import draft, make_ledger, outcome
from tests.support.received import SERIES, STUDY, instance


@pytest.fixture
def ledger(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = make_ledger(tmp_path)
    made.open_association(AssociationId("a1"), "CT1", "127.0.0.1")
    made.open_association(AssociationId("a2"), "PACS", "127.0.0.2")
    yield made
    made.close()


def count(instances: int, at: float = 1.0) -> SourceCount:
    series = (SeriesCount(series_uid=SeriesUID(SERIES), modality="MR", instances=instances),)
    return SourceCount(source="PACS by C-FIND", asked_at=at, instances=instances, series=series)


def test_evidence_comes_back_as_it_was(ledger: SqlLedger) -> None:
    """In order and in types that were checked; also about a study of which nothing has arrived."""
    said = [
        PerformedStep(step_uid="1.9", source="CT1", status="COMPLETED", instances=("1.2", "1.3")),
        count(3),
        SourceCount(source="PACS by C-FIND", asked_at=2.5, problem="cannot connect"),
    ]
    for item in said:
        ledger.add_evidence(STUDY, item)
    assert ledger.evidence(STUDY) == said
    assert ledger.evidence(StudyUID("1.2.3")) == []
    kept = ledger.evidence(STUDY)[1]
    assert isinstance(kept, SourceCount)
    assert type(kept.series[0].series_uid) is SeriesUID


def test_a_study_knows_that_there_is_news(ledger: SqlLedger) -> None:
    """The record changes with each piece, so that nobody has to read them to find out."""
    ledger.add_evidence(STUDY, count(3))
    ledger.add_instance(instance(1))
    ledger.add_instance(instance(2, association="a2"))
    assert ledger.open_studies()[0].evidence == 1
    ledger.add_evidence(STUDY, count(3, at=2.0))
    assert ledger.open_studies()[0].evidence == 2
    assert sorted(ledger.senders(STUDY)) == [("CT1", "127.0.0.1"), ("PACS", "127.0.0.2")]


def test_the_story_is_told_what_is_new(ledger: SqlLedger) -> None:
    """The same answer again is a row, but no line of the story."""
    ledger.add_instance(instance(1))
    for item in (count(3), count(3, at=2.0), count(4, at=3.0)):
        ledger.add_evidence(STUDY, item)
    told = [event["detail"] for event in ledger.explain(STUDY)["events"] if event["what"] == "evidence"]
    assert told == [f"PACS by C-FIND reports {number} instances in 1 series" for number in (3, 4)]
    assert len(ledger.explain(STUDY)["evidence"]) == 3


def test_flags_and_quarantine_at_the_limit(ledger: SqlLedger) -> None:
    """A release carries its flags; a study that is still open can be held back, unless an instance came meanwhile."""
    ledger.add_instance(instance(1))
    seen = ledger.open_studies()[0]
    assert ledger.release(STUDY, seen.revision, "limit", ("The study may be incomplete: x.",))
    assert ledger.complete_studies()[0].flags == ("The study may be incomplete: x.",)
    ledger.add_instance(instance(2))
    ledger.quarantine_study(STUDY, seen.revision, "limit")
    assert ledger.open_studies()[0].state.value == "open"
    ledger.quarantine_study(STUDY, ledger.open_studies()[0].revision, "limit")
    assert ledger.dead_letters()["studies"][0]["reason"] == "limit"
    assert ledger.explain(STUDY)["events"][-1]["what"] == "study quarantined"


def test_series_of_our_own(ledger: SqlLedger) -> None:
    """Results that Hilum has made are known by their series."""
    ledger.add_instance(instance(1))
    ledger.release(STUDY, ledger.open_studies()[0].revision, "quiet")
    assert ledger.own_series(STUDY) == frozenset()
    [job] = ledger.route(STUDY, ledger.complete_studies()[0].revision, [draft(1)], "r")
    claim = ledger.claim("w", 60)
    assert claim is not None
    ledger.commit(claim, outcome(job))
    assert ledger.own_series(STUDY) == {"1.9"}
