"""Gaps between slices, in lawful and unlawful series."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.study import Header, Study
from gateway.hold.evidence import Weight
from gateway.hold.geometry import missing_slices, weigh_geometry
from tests.support.received import header, instance

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
TILTED = (1.0, 0.0, 0.0, 0.0, math.cos(0.35), math.sin(0.35))


def slices(depths: list[float], orientation: tuple[float, ...] = AXIAL, first: int = 1) -> list[Header]:
    row, column = orientation[:3], orientation[3:]
    normal = (
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    )
    return [
        header(number, orientation=orientation, position=tuple(-90.0 + depth * part for part in normal))
        for number, depth in enumerate(depths, first)
    ]


EVERY = [float(number) for number in range(20)]
INTERLEAVED = [*EVERY[::2], *EVERY[1::2]]


@pytest.mark.parametrize(
    ("depths", "missing"),
    [
        (EVERY, 0),
        (EVERY[::-1], 0),
        (INTERLEAVED, 0),
        (EVERY[::2], 0),  # the first half of an interleaved series
        (EVERY * 4, 0),  # four phases of each slice
        ([number * 0.7003 for number in range(20)], 0),
        ([depth for depth in EVERY if depth != 7], 1),
        ([depth for depth in EVERY if depth not in (3, 4, 11)], 3),
        ([depth for depth in EVERY * 3 if depth != 7], 1),
        (EVERY[1:-1], 0),  # the ends tell nothing
        (EVERY[:4], None),
        ([0.0] * 10, None),
        ([0, 1, 2.5, 4.7, 8, 12, 19, 31], None),  # uneven on purpose
        ([*EVERY[:10], *(100 + depth for depth in EVERY[:10])], None),  # two stacks
        ([*EVERY[:10], *(10.4 + depth for depth in EVERY[:10])], None),  # two stacks that nearly fit
        ([], None),
    ],
)
@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, TILTED])
def test_gaps(depths: list[float], missing: int | None, orientation: tuple[float, ...]) -> None:
    """Missing slices are counted where the others are evenly spaced, and nothing is said where they are not."""
    assert missing_slices(slices(depths, orientation)) == missing


def test_orientations_are_stacks_of_their_own() -> None:
    """A localizer has three planes of few slices: nothing to say. A stack beside it is judged alone."""
    localizer = [*slices([0, 10, 20], AXIAL), *slices([0, 10, 20], SAGITTAL), *slices([0, 10, 20], TILTED)]
    assert missing_slices(localizer) is None
    assert missing_slices([*localizer, *slices([0, 1, 2, 3, 4, 6, 7, 8], (0.0, 1.0, 0.0, 1.0, 0.0, 0.0))]) == 1


def test_no_positions_and_multi_frame_say_nothing() -> None:
    """A radiograph has no position; positions of an enhanced object are not in what is read of it."""
    assert missing_slices([header(number) for number in range(20)]) is None
    assert missing_slices([header(1, orientation=AXIAL, position=(0.0, 0.0, 0.0), frames=30)]) is None


@given(st.integers(8, 60), st.floats(0.2, 10), st.data())
def test_a_lost_slice_is_found(count: int, spacing: float, data: st.DataObject) -> None:
    """Any slice that is lost between others is found, whatever the spacing and the jitter of real positions."""
    lost = data.draw(st.integers(1, count - 2))
    jitter = data.draw(st.lists(st.floats(-0.01, 0.01), min_size=count, max_size=count))
    depths = [(number + jitter[number]) * spacing for number in range(count)]
    assert missing_slices(slices(depths)) == 0
    assert missing_slices(slices(depths[:lost] + depths[lost + 1 :])) == 1


def test_of_a_study() -> None:
    """One sentence for all series."""
    whole = [instance(number, orientation=AXIAL, position=(0.0, 0.0, float(number))) for number in range(8)]
    other = [
        instance(number, series="1.2.826.1.2", orientation=AXIAL, position=(0.0, 0.0, float(number)))
        for number in (0, 1, 2, 4, 5, 6, 7)
    ]
    nothing = [instance(1, series="1.2.826.1.3")]
    study = whole[0].header.study_uid
    assert weigh_geometry(Study.of(study, nothing).series) is None
    even = weigh_geometry(Study.of(study, whole + nothing).series)
    gap = weigh_geometry(Study.of(study, whole + other).series)
    assert even is not None
    assert gap is not None
    assert (even.weight, even.sentence) == (Weight.NOTE, "no gap between slices in 1 of 2 series")
    assert (gap.weight, gap.sentence) == (
        Weight.DOUBT,
        "1 slice seems to be missing between others in 1 of 2 series",
    )
