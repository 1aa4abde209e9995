"""What each piece of evidence says about what is here."""

from __future__ import annotations

import pytest

from gateway.domain.evidence import PerformedStep, SeriesCount, SourceCount
from gateway.domain.ids import SeriesUID
from gateway.hold.evidence import Held, Weight, next_question, weigh, weigh_required

T1, T2, OTHER, OURS = SeriesUID("1.1"), SeriesUID("1.2"), SeriesUID("1.3"), SeriesUID("1.4")
HELD = Held(series={T1: 8, T2: 2}, instances=frozenset({"1.1.1", "1.1.2"}), own_series=frozenset({OURS}))


def answer(*series: tuple[SeriesUID, str, int], total: int = 0, at: float = 100.0, problem: str = "") -> SourceCount:
    counts = tuple(SeriesCount(series_uid=uid, modality=modality, instances=count) for uid, modality, count in series)
    return SourceCount(source="PACS by C-FIND", asked_at=at, instances=total, series=counts, problem=problem)


WHOLE = ((T1, "MR", 8), (T2, "MR", 2))


@pytest.mark.parametrize(
    ("said", "weight", "sentence"),
    [
        (answer(*WHOLE, total=10), Weight.COMPLETE, "reports 10 instances in 2 series, all here"),
        (answer(*WHOLE), Weight.COMPLETE, "reports 10 instances in 2 series, all here"),
        (answer((T1, "MR", 9), (T2, "MR", 2)), Weight.MISSING, "1 of them not here in series that have begun"),
        (answer((T1, "MR", 9), (T2, "MR", 2), total=10), Weight.MISSING, "1 of them not here"),
        (answer(*WHOLE, total=12), Weight.NOTE, "do not add up"),
        (answer(total=10), Weight.NOTE, "do not add up"),
        (answer((T1, "MR", 7), (T2, "MR", 2)), Weight.NOTE, "fewer than are here"),
        (answer((T1, "MR", 8)), Weight.NOTE, "fewer than are here"),
        (answer(), Weight.NOTE, "does not know the study"),
        (answer(problem="cannot connect"), Weight.NOTE, "gave no count (cannot connect)"),
        # series that were never sent
        (answer(*WHOLE, (OTHER, "MR", 5), total=15), Weight.NOTE, "1 series never sent"),
        (answer(*WHOLE, (OTHER, "", 5)), Weight.NOTE, "1 series never sent"),
        (answer(*WHOLE, (OTHER, "SR", 1), total=11), Weight.COMPLETE, "all here but 1 series that no model reads"),
        (answer(*WHOLE, (OTHER, "PR", 0), total=10), Weight.COMPLETE, "all here"),
        (answer(*WHOLE, (OURS, "OT", 1), total=11), Weight.COMPLETE, "all here"),
    ],
)
def test_the_count_of_the_source(said: SourceCount, weight: Weight, sentence: str) -> None:
    """Series by series: documents and our own results are not waited for, other images leave it open."""
    [finding] = weigh([said], HELD)
    assert (finding.kind, finding.weight) == ("count", weight)
    assert sentence in finding.sentence
    assert finding.sentence.startswith("PACS by C-FIND ")
    assert finding.asked_at == 100.0


def step(status: str, *instances: str, uid: str = "1.9") -> PerformedStep:
    return PerformedStep(step_uid=uid, source="MR1", status=status, instances=instances)


@pytest.mark.parametrize(
    ("said", "weight", "sentence"),
    [
        (step("IN PROGRESS"), Weight.MISSING, "MPPS of MR1 in progress"),
        (step("COMPLETED", "1.1.1", "1.1.2"), Weight.COMPLETE, "completed, lists 2 instances, all here"),
        (step("COMPLETED", "1.1.1", "1.1.9"), Weight.MISSING, "lists 2 instances, 1 not here"),
        (step("COMPLETED"), Weight.NOTE, "lists 0 instances"),
        (step("DISCONTINUED", "1.1.1"), Weight.NOTE, "discontinued, lists 1 instance"),
        (step("DISCONTINUED", "1.1.9"), Weight.MISSING, "1 not here"),
    ],
)
def test_the_performed_step(said: PerformedStep, weight: Weight, sentence: str) -> None:
    """Only a completed step whose every instance is here says that all is here."""
    [finding] = weigh([said], HELD)
    assert (finding.kind, finding.weight) == ("mpps", weight)
    assert sentence in finding.sentence


def test_the_newest_word_of_each_counts() -> None:
    """An earlier answer of the same source, and an earlier state of the same step, are history."""
    before = [answer((T1, "MR", 99), at=1.0), step("IN PROGRESS"), step("IN PROGRESS", uid="1.8")]
    after = [answer(*WHOLE, at=2.0), step("COMPLETED", "1.1.1")]
    weights = [finding.weight for finding in weigh([*before, *after], HELD)]
    assert weights == [Weight.COMPLETE, Weight.COMPLETE, Weight.MISSING]


def test_required_series() -> None:
    """Nothing required says nothing; what is not met is named for whoever runs the site."""
    assert weigh_required(0, ()) is None
    met, unmet = weigh_required(2, ()), weigh_required(2, ("T1",))
    assert met is not None
    assert unmet is not None
    assert (met.weight, met.sentence) == (Weight.COMPLETE, "2 of 2 required series here")
    assert (unmet.weight, unmet.sentence, unmet.detail) == (
        Weight.MISSING,
        "1 of 2 required series here",
        "none meets T1",
    )


def test_when_to_ask() -> None:
    """At the first moment of rest after the last instance; again with growing pauses; never after a whole answer."""
    source = "PACS by C-FIND"

    def asked(*answers: SourceCount) -> float | None:
        return next_question(source, answers, 100.0, HELD, 0.3)

    assert asked() == pytest.approx(100.3)
    assert asked(answer(*WHOLE, at=99.0)) == pytest.approx(100.3), "an answer from before the last instance is none"
    assert asked(answer(*WHOLE, at=101.0)) is None
    failed = [answer(problem="down", at=101.0 + number) for number in range(20)]
    assert [asked(*failed[:count]) for count in (1, 2, 3)] == [102.0, 104.0, 107.0]
    assert asked(*failed) == 120.0 + 60.0
    assert asked(answer((T1, "MR", 9), at=101.0)) == 102.0
    other = SourceCount(source="ARCHIVE by C-FIND", asked_at=101.0, problem="down")
    assert asked(other) == pytest.approx(100.3), "each source has its own pauses"
