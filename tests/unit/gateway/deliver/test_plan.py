"""What goes where, and when again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deliver.plan import GIVE_UP_AFTER, control_id, next_try, plan
from gateway.domain.errors import ConfigurationError
from gateway.domain.ids import DestinationName, InputSetId, JobId, ModelName, SeriesUID, Sha256, StudyUID
from gateway.domain.job import DeliveryDraft, Job, JobDraft, Payload
from gateway.domain.states import JobState
from tests.support.outcomes import outcome, result_object

PACS, ARCHIVE, EHR = DestinationName("pacs"), DestinationName("archive"), DestinationName("ehr")


def job(*deliver: DestinationName, roles: tuple[str, ...] = ("seg", "sr", "sr-data")) -> Job:
    draft = JobDraft(
        id=JobId("a" * 32),
        study_uid=StudyUID("1.2"),
        series_uid=SeriesUID("1.2.3"),
        input_set=InputSetId("i"),
        model=ModelName("m"),
        model_digest=Sha256("d"),
        rule="r",
        deliver=deliver,
    )
    objects = tuple(result_object(role, f"2.25.{number}") for number, role in enumerate(roles))
    return Job(
        draft=draft,
        state=JobState.READY,
        fence=1,
        attempts_failed=0,
        attempts_lost=0,
        reason="",
        created_at=0.0,
        started_at=1.0,
        finished_at=2.0,
        supersedes=None,
        outcome=outcome(objects=objects),
    )


def message(name: DestinationName = EHR) -> DeliveryDraft:
    return DeliveryDraft(
        job_id=JobId("a" * 32), destination=name, payload=Payload.MESSAGE, role="oru", key="C1", file="message"
    )


def test_each_pacs_gets_the_roles_it_takes() -> None:
    """One draft for each object and destination, with the object's own UID, class and file."""
    drafts = plan(job(PACS, ARCHIVE), {PACS: frozenset({"seg", "sr"}), ARCHIVE: frozenset({"sr-data", "pdf"})})
    assert [(draft.destination, draft.role, draft.key) for draft in drafts] == [
        (PACS, "seg", "2.25.0"),
        (PACS, "sr", "2.25.1"),
        (ARCHIVE, "sr-data", "2.25.2"),
    ]
    assert {draft.file for draft in drafts} == {"key of 2.25.0", "key of 2.25.1", "key of 2.25.2"}
    assert all(draft.sop_class_uid and not draft.held and draft.payload is Payload.OBJECT for draft in drafts)


def test_message_waits_for_the_objects_it_speaks_of() -> None:
    """Held where there are objects, free where there are none."""
    with_objects = plan(job(PACS, EHR), {PACS: frozenset({"seg"})}, [message()])
    alone = plan(job(EHR), {PACS: frozenset({"seg"})}, [message()])
    nothing_taken = plan(job(PACS, EHR), {PACS: frozenset({"pdf"})}, [message()])
    assert with_objects[-1] == replace(message(), held=True)
    assert alone == nothing_taken == (message(),)


def test_destination_nobody_knows_is_an_error() -> None:
    """A result must not quietly go nowhere."""
    with pytest.raises(ConfigurationError, match="elsewhere"):
        plan(job(PACS, DestinationName("elsewhere")), {PACS: frozenset({"seg"})})


def test_destination_named_twice_gets_one_copy() -> None:
    """The same row twice would be the same object twice."""
    assert len(plan(job(PACS, PACS), {PACS: frozenset({"seg"})})) == 1


def test_fallbacks_go_along_with_what_they_stand_in_for() -> None:
    """Every form that was written, each with what would go instead of it, and never in a circle."""
    fallbacks = {PACS: {"seg-labelmap": ("seg",), "seg": ("sc",), "sc": ("seg-labelmap",), "sr": ("sr-comprehensive",)}}
    made = job(PACS, roles=("seg", "seg-labelmap", "sc", "sc", "sr"))
    labelmap, report = plan(made, {PACS: frozenset({"seg-labelmap", "sr"})}, (), fallbacks)
    assert report.fallbacks == ()  # it was not written
    (binary,) = labelmap.fallbacks
    assert (binary.role, [one.role for one in binary.fallbacks]) == ("seg", ["sc", "sc"])
    assert {end.fallbacks for one in binary.fallbacks for end in one.fallbacks} == {()}  # the circle ends


def test_a_form_that_was_not_written_is_no_reason_to_send_nothing() -> None:
    """The usual form goes."""
    drafts = plan(job(PACS, roles=("seg", "sr")), {PACS: frozenset({"seg-labelmap", "sr-strict", "sr"})})
    assert [draft.role for draft in drafts] == ["seg", "sr"]


def test_control_id_fits_msh_10_and_differs_by_destination() -> None:
    """20 characters, the same after every restart."""
    first, second = control_id(JobId("a"), EHR), control_id(JobId("a"), PACS)
    assert first == control_id(JobId("a"), EHR) != second
    assert len(first) == 20


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 2e9), st.floats(-1e6, GIVE_UP_AFTER - 1))
def test_next_try_is_soon_and_never_longer_than_five_minutes(
    attempts: int, jitter: float, first: float, since: float
) -> None:
    """Within 20 % of 5 s doubled each time, at most 300 s, even when the clock has gone back."""
    now = first + since
    due = next_try(attempts, first, now, jitter)
    assert due is not None
    nominal = min(5.0 * 2.0 ** min(attempts - 1, 60), 300.0)
    assert 0.8 * nominal - 1e-3 <= due - now <= min(1.2 * nominal, 300.0) + 1e-3


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(GIVE_UP_AFTER, 1e9))
def test_after_three_days_it_is_given_up(attempts: int, jitter: float, since: float) -> None:
    """72 h after the first try there is no other."""
    assert next_try(attempts, 0.0, since, jitter) is None


def test_back_off_doubles() -> None:
    """5, 10, 20, ... 300 s in the middle of the jitter."""
    delays = [next_try(attempts, 0.0, 0.0, 0.5) for attempts in range(1, 9)]
    assert delays == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300])
