"""When a study is complete: the table of evidence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.domain.ids import StudyUID
from gateway.domain.ports import StudyRecord
from gateway.domain.states import StudyState
from gateway.hold.assembly import Quarantine, Release, Verdict, Wait, decide, decide_together, earliest
from gateway.hold.evidence import Finding, Weight
from gateway.hold.settings import Hold

T = 1000.0
FIVE = Hold(quiet=5, limit=60)
AT_ONCE = Hold(quiet=5, limit=60, association_is_study=True)
STRICT = Hold(quiet=5, limit=60, at_limit="quarantine")
DEAF = Hold(quiet=5, limit=60, trust=())
LISTED = Hold(quiet=5, limit=60, trust=("count", "mpps", "require"))

ALL = Finding(kind="count", weight=Weight.COMPLETE, sentence="PACS reports 3, all here", asked_at=T + 0.3)
OLD = Finding(kind="count", weight=Weight.COMPLETE, sentence="PACS reports 3, all here", asked_at=T)
MORE = Finding(kind="count", weight=Weight.MISSING, sentence="PACS reports 9, 6 not here", asked_at=T + 0.3)
SILENT = Finding(kind="count", weight=Weight.NOTE, sentence="PACS gave no count", asked_at=T + 0.3)
DONE = Finding(kind="mpps", weight=Weight.COMPLETE, sentence="MPPS completed, all here")
RUNNING = Finding(kind="mpps", weight=Weight.MISSING, sentence="MPPS in progress")
GAP = Finding(kind="geometry", weight=Weight.DOUBT, sentence="2 slices seem to be missing")
EVEN = Finding(kind="geometry", weight=Weight.NOTE, sentence="no gap")
SERIES = Finding(kind="require", weight=Weight.COMPLETE, sentence="2 of 2 required series here")
NO_T1 = Finding(kind="require", weight=Weight.MISSING, sentence="1 of 2 required series here", detail="none meets T1")


def record(
    *, open_associations: int = 0, all_released: bool = True, last_released: bool = True, instances: int = 3
) -> StudyRecord:
    return StudyRecord(
        uid=StudyUID("1.2"),
        state=StudyState.OPEN,
        instances=instances,
        revision=instances,
        last_stored_at=T,
        open_associations=open_associations,
        all_released=all_released,
        last_released=last_released,
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


@pytest.mark.parametrize(
    ("findings", "last_released", "flagged"),
    [((), True, False), ((), False, True), ((EVEN,), False, True), ((ALL,), False, False), ((OLD,), False, True)],
)
def test_a_sender_that_was_cut_off(findings: tuple[Finding, ...], last_released: bool, flagged: bool) -> None:
    """Quiet alone does not say that all is here: results are flagged, unless somebody who knows says so."""
    verdict = decide(record(all_released=False, last_released=last_released), FIVE, T + 5, findings)
    assert isinstance(verdict, Release)
    assert bool(verdict.flags) == flagged
    assert all("the last sender was cut off" in flag for flag in verdict.flags)


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
    lambda quiet, more, gap, whole, trust, at_limit: Hold(
        quiet=quiet, limit=quiet + more, gap=gap, association_is_study=whole, trust=trust, at_limit=at_limit
    ),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
    st.booleans(),
    st.sets(st.sampled_from(["count", "mpps", "require"])).map(tuple),
    st.sampled_from(["run", "quarantine"]),
)
FINDINGS = st.lists(
    st.sampled_from([ALL, OLD, MORE, SILENT, DONE, RUNNING, GAP, EVEN, SERIES, NO_T1]), max_size=5, unique=True
)
RECORDS = st.builds(
    record, open_associations=st.integers(0, 2), all_released=st.booleans(), last_released=st.booleans()
)
AFTER = st.integers(-10, 300)


@pytest.mark.parametrize(
    ("hold", "said", "after", "open_associations", "expected"),
    [
        # the count of the source
        (FIVE, [ALL], 0.3, 0, "nothing has come for 0.3 s"),
        (FIVE, [ALL], 0.2, 0, Wait(until=T + 0.3)),
        (FIVE, [OLD], 0.3, 0, Wait(until=T + 5)),
        (FIVE, [SILENT], 0.3, 0, Wait(until=T + 5)),
        (FIVE, [SILENT], 5, 0, "quiet for 5.0 s"),
        (FIVE, [MORE], 5, 0, Wait(until=T + 60)),
        (FIVE, [MORE], 60, 0, "upper limit of 60 s reached, evidence incomplete"),
        (DEAF, [ALL], 0.3, 0, Wait(until=T + 5)),
        (DEAF, [MORE], 5, 0, "quiet for 5.0 s"),
        # somebody is still connected
        (FIVE, [ALL], 0.3, 1, Wait(until=T + 5)),
        (FIVE, [ALL], 5, 1, "1 association still open"),
        (FIVE, [DONE], 5, 1, "MPPS completed, all here"),
        (FIVE, [SERIES], 5, 1, Wait(until=T + 60)),
        # the modality
        (FIVE, [DONE], 0.3, 0, "MPPS completed, all here"),
        (FIVE, [RUNNING], 59, 0, Wait(until=T + 60)),
        (FIVE, [ALL, RUNNING], 59, 0, Wait(until=T + 60)),
        (FIVE, [DONE, MORE], 59, 0, Wait(until=T + 60)),
        # what rules require
        (FIVE, [SERIES], 0.3, 0, Wait(until=T + 5)),
        (LISTED, [SERIES], 0.3, 0, "2 of 2 required series here"),
        (FIVE, [NO_T1], 5, 0, Wait(until=T + 60)),
        (DEAF, [NO_T1, ALL, DONE], 59, 0, Wait(until=T + 60)),
        (AT_ONCE, [NO_T1], 5, 0, Wait(until=T + 60)),
        # geometry
        (FIVE, [EVEN], 0.3, 0, Wait(until=T + 5)),
        (FIVE, [GAP], 5, 0, Wait(until=T + 15)),
        (FIVE, [GAP], 15, 0, "waited 15.0 s for missing slices"),
        (FIVE, [ALL, GAP], 5, 0, Wait(until=T + 15)),
        (AT_ONCE, [GAP], 5, 0, Wait(until=T + 15)),
        (FIVE, [GAP], 15, 1, Wait(until=T + 60)),
        (FIVE, [GAP, MORE], 15, 0, Wait(until=T + 60)),
        (STRICT, [GAP], 15, 0, Wait(until=T + 60)),
    ],
)
def test_evidence_from_others(
    hold: Hold, said: list[Finding], after: float, open_associations: int, expected: Wait | str
) -> None:
    """What is missing outweighs what is said to be all; what is not trusted is only told; the reason names everything."""
    verdict = decide(record(open_associations=open_associations), hold, T + after, said)
    if isinstance(expected, str):
        assert isinstance(verdict, Release)
        assert expected in verdict.reason
        assert all(one.sentence in verdict.reason for one in said)
    else:
        assert verdict == expected


def test_the_limit_flags_or_holds_back() -> None:
    """An incomplete study is run with a flag that says what is missing, or is held for a person."""
    assert decide(record(), FIVE, T + 60, [MORE, GAP]) == Release(
        reason="3 instances; every association released; PACS reports 9, 6 not here; 2 slices seem to be missing; "
        "upper limit of 60 s reached, evidence incomplete",
        flags=("The study may be incomplete: PACS reports 9, 6 not here; 2 slices seem to be missing.",),
    )
    verdict = decide(record(open_associations=1), FIVE, T + 60)
    assert isinstance(verdict, Release)
    assert verdict.flags == ("The study may be incomplete: the sender had not finished.",)
    held_back = decide(record(), STRICT, T + 60, [NO_T1])
    assert isinstance(held_back, Quarantine)
    assert "1 of 2 required series here (none meets T1)" in held_back.reason


def test_a_complete_study_is_not_called_incomplete_because_nobody_looked() -> None:
    """After a long stop the first look comes late: that alone is no flag."""
    verdict = decide(record(), STRICT, T + 10_000)
    assert isinstance(verdict, Release)
    assert verdict.flags == ()
    assert "incomplete" not in verdict.reason


def test_a_gap_that_is_run_is_flagged() -> None:
    """A reader of the result must know."""
    verdict = decide(record(), FIVE, T + 15, [GAP])
    assert isinstance(verdict, Release)
    assert verdict.flags == ("The study may be incomplete: 2 slices seem to be missing.",)


@given(RECORDS, HOLDS, AFTER)
def test_an_open_association_holds_until_the_limit(item: StudyRecord, hold: Hold, after: float) -> None:
    """While somebody may still send, and nobody says that all is here, only the upper limit releases."""
    verdict = decide(item, hold, T + after)
    if item.open_associations and T + after - T < hold.limit:
        assert isinstance(verdict, Wait)


@given(RECORDS, HOLDS, AFTER, FINDINGS)
def test_waiting_ends(item: StudyRecord, hold: Hold, after: float, said: list[Finding]) -> None:
    """Who waits is told until when, that lies ahead, and then there is an end or a later moment up to the limit."""
    verdict = decide(item, hold, T + after, said)
    if isinstance(verdict, Wait):
        assert T + after < verdict.until <= T + hold.limit
        assert not isinstance(decide(item, hold, T + hold.limit + 1, said), Wait)


@given(RECORDS, HOLDS, AFTER, FINDINGS, st.sampled_from([MORE, RUNNING, NO_T1]))
def test_what_is_missing_is_waited_for(
    item: StudyRecord, hold: Hold, after: float, said: list[Finding], missing: Finding
) -> None:
    """However much evidence says that all is here, an incomplete study is not released before the limit."""
    if missing.kind in ("count", "mpps") and missing.kind not in hold.trust:
        return
    verdict = decide(item, hold, T + after, [*said, missing])
    assert isinstance(verdict, Wait) == (after < hold.limit)
    if not isinstance(verdict, Wait):
        assert isinstance(verdict, Quarantine) == (hold.at_limit == "quarantine")
        assert isinstance(verdict, Quarantine) or verdict.flags


@given(RECORDS, HOLDS, AFTER, FINDINGS)
def test_the_reason_names_the_evidence(item: StudyRecord, hold: Hold, after: float, said: list[Finding]) -> None:
    """Whatever was weighed is in the sentence that is kept."""
    verdict = decide(item, hold, T + after, said)
    if not isinstance(verdict, Wait):
        assert all(one.sentence in verdict.reason for one in said)


@given(RECORDS, st.lists(st.tuples(HOLDS, FINDINGS), min_size=1, max_size=4), AFTER)
def test_the_most_patient_rule_counts(item: StudyRecord, wants: list[tuple[Hold, list[Finding]]], after: float) -> None:
    """No rule sees a study that it would still wait for; all flags are kept; one look suffices before the first moment."""
    verdict = decide_together(item, wants, T + after)
    each: list[Verdict] = [decide(item, hold, T + after, said) for hold, said in wants]
    assert isinstance(verdict, Wait) == any(isinstance(one, Wait) for one in each)
    if isinstance(verdict, Wait):
        assert verdict.until > T + after
    elif any(isinstance(one, Quarantine) for one in each):
        assert isinstance(verdict, Quarantine)
    else:
        assert isinstance(verdict, Release)
        assert {flag for one in each if isinstance(one, Release) for flag in one.flags} == set(verdict.flags)
    if T + after < earliest(item, [hold for hold, _ in wants]):
        assert isinstance(verdict, Wait)
