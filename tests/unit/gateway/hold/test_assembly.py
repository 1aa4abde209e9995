"""When a study is complete: the table of evidence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.domain.ids import StudyUID
from gateway.domain.ports import StudyRecord
from gateway.domain.states import StudyState
from gateway.hold.assembly import Release, Wait, decide, longest, shortest
from gateway.hold.settings import Hold

T = 1000.0
FIVE = Hold(quiet=5, limit=60)
AT_ONCE = Hold(quiet=5, limit=60, association_is_study=True)


def record(*, open_associations: int = 0, all_released: bool = True, instances: int = 3) -> StudyRecord:
    return StudyRecord(
        uid=StudyUID("1.2"),
        state=StudyState.OPEN,
        instances=instances,
        revision=instances,
        last_stored_at=T,
        open_associations=open_associations,
        all_released=all_released,
        reason="",
        released_at=None,
    )


@pytest.mark.parametrize(
    ("hold", "after", "open_associations", "all_released", "expected"),
    [
        (FIVE, 0, 0, True, Wait(until=T + 5)),
        (FIVE, 4.9, 0, True, Wait(until=T + 5)),
        (FIVE, 5, 0, True, "every association released"),
        (FIVE, 5, 0, False, "not all ended in good order"),
        (FIVE, 5, 1, False, Wait(until=T + 60)),
        (FIVE, 59.9, 1, False, Wait(until=T + 60)),
        (FIVE, 60, 1, False, "upper limit of 60 s reached, evidence incomplete"),
        (FIVE, -100, 0, True, Wait(until=T + 5)),
        (AT_ONCE, 0, 0, True, "this sender puts a study into one association"),
        (AT_ONCE, 0, 1, False, Wait(until=T + 60)),
        (AT_ONCE, 0, 0, False, Wait(until=T + 5)),
        (AT_ONCE, 5, 0, False, "not all ended in good order"),
    ],
)
def test_evidence(hold: Hold, after: float, open_associations: int, all_released: bool, expected: Wait | str) -> None:
    """Each kind of evidence has its verdict, and a release says why in one sentence."""
    verdict = decide(record(open_associations=open_associations, all_released=all_released), hold, T + after)
    if isinstance(expected, str):
        assert isinstance(verdict, Release)
        assert expected in verdict.reason
        assert verdict.reason.startswith("3 instances; ")
    else:
        assert verdict == expected


def test_one_instance_is_one() -> None:
    """The sentence counts as people do."""
    verdict = decide(record(instances=1), FIVE, T + 5)
    assert isinstance(verdict, Release)
    assert verdict.reason.startswith("1 instance; ")


def test_quiet_cannot_be_longer_than_the_limit() -> None:
    """Such a way to wait would call every study incomplete."""
    with pytest.raises(ValidationError, match="quiet is longer than limit"):
        Hold.model_validate({"quiet": "2h"})
    assert Hold.model_validate({"quiet": "2h", "limit": "1d"}).quiet == 7200


HOLDS = st.builds(
    lambda quiet, more, whole: Hold(quiet=quiet, limit=quiet + more, association_is_study=whole),
    st.integers(0, 100),
    st.integers(0, 100),
    st.booleans(),
)
RECORDS = st.builds(record, open_associations=st.integers(0, 2), all_released=st.booleans())
AFTER = st.integers(-10, 300)


@given(RECORDS, HOLDS, AFTER)
def test_an_open_association_holds_until_the_limit(item: StudyRecord, hold: Hold, after: float) -> None:
    """While somebody may still send, only the upper limit releases."""
    verdict = decide(item, hold, T + after)
    if item.open_associations and T + after - T < hold.limit:
        assert isinstance(verdict, Wait)


@given(RECORDS, HOLDS, AFTER)
def test_waiting_ends(item: StudyRecord, hold: Hold, after: float) -> None:
    """Who waits is told until when, that lies ahead, and then there is an end or a later moment up to the limit."""
    verdict = decide(item, hold, T + after)
    if isinstance(verdict, Wait):
        assert T + after < verdict.until <= T + hold.limit
        assert isinstance(decide(item, hold, T + hold.limit + 1), Release)


@given(RECORDS, st.lists(HOLDS, min_size=1, max_size=4), HOLDS, AFTER)
def test_longest_and_shortest(item: StudyRecord, holds: list[Hold], default: Hold, after: float) -> None:
    """What the most patient way releases all release; what the least patient does not, none does."""
    verdicts = [isinstance(decide(item, hold, T + after), Release) for hold in holds]
    if isinstance(decide(item, longest(holds, default), T + after), Release):
        assert all(verdicts)
    if not isinstance(decide(item, shortest(holds), T + after), Release):
        assert not any(verdicts)


def test_without_rules_the_default_counts() -> None:
    """A study that no rule wants waits as the site says for such."""
    assert longest([], FIVE) == FIVE
    assert longest([AT_ONCE], FIVE) == AT_ONCE
