"""What receiving and holding do to the ledger: instances, associations, release."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.domain.errors import NotFound
from gateway.domain.ids import AssociationId, InstanceUID, StudyUID
from gateway.store.ledger import SqlLedger
from tests.support.ledgers import draft, make_ledger, outcome
from tests.support.received import SERIES, STUDY, instance


@pytest.fixture
def ledger(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = make_ledger(tmp_path)
    for name in ("a1", "a2"):
        made.open_association(AssociationId(name), "CT1", "127.0.0.1")
    yield made
    made.close()


def record(ledger: SqlLedger):  # type: ignore[no-untyped-def]
    return ledger.open_studies()[0]


def test_an_instance_comes_back_whole(ledger: SqlLedger) -> None:
    """Header, digest, sender: everything is kept, in types that were checked."""
    made = instance(position=(1.0, 2.0, 3.0), image_type=("A", "B"), slice_thickness=None)
    ledger.add_instance(made)
    assert ledger.instance(made.header.sop_instance_uid) == made
    assert type(ledger.instance(made.header.sop_instance_uid).header.study_uid) is StudyUID  # type: ignore[union-attr]
    assert ledger.instance(InstanceUID("1.9")) is None


def test_new_duplicate_conflict(ledger: SqlLedger) -> None:
    """The first content of a SOP Instance UID stays; another is put aside once, with both digests to look at."""
    first, other = instance(), instance(content="other")
    answers = [ledger.add_instance(item) for item in (first, first, other, other, first)]
    assert answers == ["new", "duplicate", "conflict", "conflict", "duplicate"]
    assert ledger.instance(first.header.sop_instance_uid) == first
    story = ledger.explain(STUDY)
    assert [row["sha256"] for row in story["conflicts"]] == [other.sha256]
    assert [event["what"] for event in story["events"]] == ["study opened", "conflict quarantined"]
    assert story["study"]["instances"] == 1


def test_a_conflict_belongs_to_the_study_that_has_the_first_copy(ledger: SqlLedger) -> None:
    """The same SOP Instance UID in another study is told in the story of the first."""
    first = instance()
    ledger.add_instance(first)
    stray = dataclasses.replace(
        first, sha256="0" * 64, header=dataclasses.replace(first.header, study_uid=StudyUID("1.2.77"))
    )  # type: ignore[arg-type]
    assert ledger.add_instance(stray) == "conflict"
    assert ledger.dead_letters()["conflicts"][0]["study_uid"] == STUDY
    with pytest.raises(NotFound):
        ledger.explain("1.2.77")


def test_release_knows_what_it_has_seen(ledger: SqlLedger) -> None:
    """An instance that came since the record was read is not released with it; a duplicate is no news."""
    ledger.add_instance(instance(1))
    seen = record(ledger)
    ledger.add_instance(instance(2))
    assert not ledger.release(STUDY, seen.revision, "quiet")
    seen = record(ledger)
    ledger.add_instance(instance(2))
    assert ledger.release(STUDY, seen.revision, "quiet")
    assert not ledger.release(STUDY, seen.revision, "quiet")
    assert ledger.complete_studies()[0].reason == "quiet"


def test_a_duplicate_keeps_an_open_study_waiting(ledger: SqlLedger) -> None:
    """A sender that repeats itself is still busy: the quiet time starts again, but a routed study stays routed."""
    ledger.add_instance(instance(1, at=100.0))
    ledger.add_instance(instance(1, at=200.0))
    assert record(ledger).last_stored_at == 200.0
    seen = record(ledger)
    ledger.release(STUDY, seen.revision, "quiet")
    ledger.route(STUDY, seen.revision, [], "nothing")
    ledger.add_instance(instance(1, at=300.0))
    assert ledger.open_studies() == []


def test_associations_are_evidence(ledger: SqlLedger) -> None:
    """Open while one that carried the study is; in good order only if all were released."""
    ledger.add_instance(instance(1, association="a1"))
    ledger.add_instance(instance(2, association="a2"))
    assert (record(ledger).open_associations, record(ledger).all_released) == (2, False)
    ledger.close_association(AssociationId("a1"), "released")
    assert (record(ledger).open_associations, record(ledger).all_released) == (1, False)
    ledger.close_association(AssociationId("a2"), "released")
    assert (record(ledger).open_associations, record(ledger).all_released) == (0, True)
    ledger.close_association(AssociationId("a2"), "aborted")
    assert record(ledger).all_released, "the first end of an association is the true one"


def test_how_the_last_association_ended(ledger: SqlLedger) -> None:
    """One that is cut off, one after it that brings the rest in good order, one of which something was not taken."""
    for number, how in ((1, "lost"), (2, "released"), (3, "refused")):
        association = AssociationId(f"last{number}")
        ledger.open_association(association, "CT1", "127.0.0.1")
        ledger.add_instance(instance(number, association=association))
        ledger.clock.time += 1  # type: ignore[attr-defined]
        ledger.close_association(association, how)
        assert record(ledger).last_released == (how == "released")
        assert not record(ledger).all_released


def test_an_association_that_carried_nothing_is_no_evidence(ledger: SqlLedger) -> None:
    """A C-ECHO beside it holds up no study."""
    ledger.add_instance(instance(1, association="a1"))
    ledger.close_association(AssociationId("a1"), "released")
    assert (record(ledger).open_associations, record(ledger).all_released) == (0, True)


def test_a_stop_of_any_kind_closes_what_was_open(ledger: SqlLedger) -> None:
    """Associations of the last gateway are lost, so that no study waits for them for ever."""
    ledger.add_instance(instance(1, association="a1"))
    ledger.recover()
    assert (record(ledger).open_associations, record(ledger).all_released) == (0, False)


def test_a_late_instance_opens_the_study_again(ledger: SqlLedger) -> None:
    """A new input set takes the place of the queued job, or follows the one that ran."""
    jobs = []
    for number in (1, 2, 3):
        ledger.add_instance(instance(number))
        seen = record(ledger)
        ledger.release(STUDY, seen.revision, "quiet")
        ledger.clock.time += 1  # type: ignore[attr-defined]
        jobs += ledger.route(STUDY, seen.revision, [draft(number)], "r")
        if number == 2:
            claim = ledger.claim("w", 60)
            assert claim is not None
            ledger.commit(claim, outcome(claim.job.id, objects=()))
    rows = {row["id"]: (row["state"], row["supersedes"]) for row in ledger.list_jobs()}
    assert rows == {jobs[0]: ("superseded", None), jobs[1]: ("ready", None), jobs[2]: ("queued", jobs[1])}
    assert [len(ledger.input_instances(job)) for job in jobs] == [1, 2, 3]


def test_what_we_made_is_no_input(ledger: SqlLedger) -> None:
    """A result that the PACS sends back is stored, but no study for routing has it, nor any job as input."""
    ledger.add_instance(instance(1))
    seen = record(ledger)
    ledger.release(STUDY, seen.revision, "quiet")
    [job] = ledger.route(STUDY, seen.revision, [draft(1)], "r")
    claim = ledger.claim("w", 60)
    assert claim is not None
    own = f"{SERIES}.9"
    ledger.commit(claim, outcome(job, objects=(own,)))
    assert ledger.add_instance(instance(9)) == "new"
    assert [item.header.sop_instance_uid for item in ledger.study(STUDY).instances] == [f"{SERIES}.1"]
    seen = record(ledger)
    ledger.release(STUDY, seen.revision, "quiet")
    [again] = ledger.route(STUDY, seen.revision, [draft(2)], "r")
    assert [item.header.sop_instance_uid for item in ledger.input_instances(again)] == [f"{SERIES}.1"]


def test_a_study_of_our_results_only(ledger: SqlLedger) -> None:
    """It exists, and has nothing to run on; a study that never came does not exist."""
    with pytest.raises(NotFound):
        ledger.study(StudyUID("1.2.3"))
