"""What makes two jobs the same job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.submit.jobkey import job_key

PARTS = st.tuples(*[st.text(alphabet="0123456789.abcdef", max_size=6)] * 4)


def test_the_key_stays_the_same_for_ever() -> None:
    """An upgrade that changed it would run everything again and send every result twice."""
    assert job_key("1.2", "1.2.3", "a" * 64, "b" * 64) == "6245a5ae03dac51fb9242be0544b488e"


@given(PARTS, PARTS)
def test_every_part_counts(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Two keys are the same only if study, series, input set and model are."""
    assert (job_key(*one) == job_key(*other)) == (one == other)
    assert len(job_key(*one)) == 32
