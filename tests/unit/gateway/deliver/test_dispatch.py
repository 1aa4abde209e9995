"""Dispatchers: how much at once, and how fast."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.deliver.dispatch import Dispatcher, Limits, by_reading_back, through_pacs
from gateway.domain.states import JobEvent
from gateway.store.spool import LocalSpool
from gateway.testing import RecordingPacs
from tests.support.ledgers import PACS, Story, deliveries


@pytest.fixture
def story(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Five objects for the PACS."""
    made = Story(tmp_path)
    made.queue()
    for event in (JobEvent.CLAIMED, JobEvent.COMMITTED):
        made.job_events[event]()
    spool = LocalSpool(tmp_path / "spool")
    drafts = deliveries(made.job, tuple(f"1.{number}" for number in range(5)))[:-1]
    drafts = [dataclasses.replace(draft, file=spool.put(draft.key, [draft.key.encode()])) for draft in drafts]
    made.ledger.plan(made.job, drafts)
    yield made, spool
    made.ledger.close()


def test_no_more_at_once_than_the_destination_bears(story: tuple[Story, LocalSpool]) -> None:
    """Two objects in a batch: three batches for five."""
    made, spool = story
    send = through_pacs(RecordingPacs(), spool)
    dispatcher = Dispatcher(PACS, send, made.ledger, made.ledger.clock, limits=Limits(batch=2))
    assert [dispatcher.deliver_due() for _ in range(4)] == [2, 2, 1, 0]


def test_the_rate_is_kept_by_resting_after_a_batch() -> None:
    """Two objects a second: one second after a batch of two, and the usual pause when nothing is due."""
    slow, free = Limits(batch=2, per_second=2), Limits()
    assert (slow.rest(2), slow.rest(1), free.rest(50)) == (1.0, 0.5, 0.0)


def test_what_the_destination_has_lost_is_sent_again(story: tuple[Story, LocalSpool]) -> None:
    """Where the PACS has lost an object it is sent again, and only that."""
    made, spool = story
    pacs = RecordingPacs()
    dispatcher = Dispatcher(
        PACS, through_pacs(pacs, spool), made.ledger, made.ledger.clock, prove=by_reading_back(pacs, spool)
    )
    dispatcher.deliver_due()
    lost = pacs.objects.pop("1.3")
    dispatcher.prove_due()
    assert sorted(row["state"] for row in made.ledger.list_deliveries()) == ["delivered"] * 4 + ["waiting"]
    made.ledger.clock.time += 300  # type: ignore[attr-defined]
    dispatcher.deliver_due()
    dispatcher.prove_due()
    assert (pacs.objects["1.3"], pacs.sent.count("1.3"), len(pacs.sent)) == (lost, 2, 6)
    assert made.job_state() == "delivered"


def test_proof_that_is_no_longer_wanted_holds_up_nothing(story: tuple[Story, LocalSpool]) -> None:
    """The site has changed its mind while objects were stored: they are delivered as they are."""
    made, spool = story
    pacs = RecordingPacs()
    send = through_pacs(pacs, spool)
    Dispatcher(PACS, send, made.ledger, made.ledger.clock, prove=by_reading_back(pacs, spool)).deliver_due()
    assert made.job_state() == "delivering"
    Dispatcher(PACS, send, made.ledger, made.ledger.clock).prove_due()
    assert made.job_state() == "delivered"


def test_a_proof_that_nobody_asks_for_any_more_is_asked_for_after_a_restart(story: tuple[Story, LocalSpool]) -> None:
    """The gateway ended between taking the proof up and asking: the next one does not wait for the lease."""
    made, spool = story
    pacs = RecordingPacs()
    dispatcher = Dispatcher(
        PACS, through_pacs(pacs, spool), made.ledger, made.ledger.clock, prove=by_reading_back(pacs, spool)
    )
    dispatcher.deliver_due()
    assert len(made.ledger.claim_proofs(PACS, 600, 10)) == 5
    assert dispatcher.prove_due() == 0
    made.ledger.recover()
    assert dispatcher.prove_due() == 5
    assert made.job_state() == "delivered"
