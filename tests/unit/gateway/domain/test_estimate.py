"""What a job will take, from what others took."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.estimate import UNKNOWN, Run, estimate

RUNS = st.lists(
    st.builds(Run, voxels=st.integers(0, 10**9), seconds=st.floats(0.1, 3600), peak_mib=st.integers(0, 65536)),
    min_size=1,
    max_size=50,
)


def runs(*values: tuple[int, float, int]) -> list[Run]:
    return [Run(voxels=voxels, seconds=seconds, peak_mib=peak) for voxels, seconds, peak in values]


def test_nothing_is_known_of_a_new_build() -> None:
    """No number is made up."""
    assert estimate([], 1000) == UNKNOWN


def test_volumes_of_like_size_decide() -> None:
    """The usual time, so that one slow start does not count; the most memory, so that it is enough."""
    known = runs((1000, 2, 700), (1100, 20, 750), (900, 3, 720), (50_000, 90, 4000))
    found = estimate(known, 1000)
    assert (found.seconds, found.memory_mib) == (3, 750)


def test_another_size_follows_the_line() -> None:
    """A size between two known ones lies between them; beyond the largest it goes on, memory not far."""
    known = runs((1_000, 1, 600), (2_000, 2, 700), (4_000, 4, 900))
    for size, seconds, memory in ((3_000, 3, 800), (8_000, 8, 1300), (40_000, 40, None)):
        found = estimate(known, size)
        assert (round(found.seconds or 0), found.memory_mib) == (seconds, memory)


def test_memory_that_was_not_seen_does_not_count_as_none() -> None:
    """A job in a process that had held more before says nothing about memory, but its time counts."""
    known = runs((1000, 2, 700), (1000, 4, 0), (1000, 6, 0))
    found = estimate(known, 1000)
    assert (found.seconds, found.memory_mib) == (4, 700)
    assert estimate(runs((1000, 4, 0)), 1000).memory_mib is None


@given(RUNS, st.integers(0, 10**10))
def test_never_less_memory_than_a_like_volume_took(known: list[Run], voxels: int) -> None:
    """Whatever is known, an estimate is a number within reason, and enough for what was seen at this size."""
    found = estimate(known, voxels)
    assert found.seconds is not None
    assert found.seconds >= 0.1 * 0.999
    seen = [run.peak_mib for run in known if run.peak_mib]
    assert found.memory_mib is None or seen
    for run in known:
        if run.peak_mib:
            again = estimate(known, run.voxels).memory_mib
            assert again is not None
            assert again >= run.peak_mib
