"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.units import parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(5, 5.0), (0.5, 0.5), ("5", 5.0), ("500ms", 0.5), ("5s", 5.0), ("2m", 120.0), ("2min", 120.0),
     ("1h", 3600.0), ("3d", 259200.0),
     (" 1.5 h ", 5400.0), (0, 0.0)],
)  # fmt: skip
def test_durations(written: object, seconds: float) -> None:
    """Every unit, with and without a space, and plain seconds."""
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "-1s",
        "5 weeks",
        "1e3",
        "5s5",
        "½h",
        "٣s",
        None,
        True,
        [5],
        -1,
        float("nan"),
        float("inf"),
        1e12,
        "9" * 400,
        "99999999d",
    ],
)
def test_what_is_no_duration(written: object) -> None:
    """Anything else raises ValueError with a sentence, also what would be endless."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(written)


@given(st.one_of(st.text(max_size=12), st.floats(), st.integers()))
def test_a_duration_is_finite_or_refused(written: object) -> None:
    """Whatever comes through is a number of seconds that can be waited for."""
    try:
        seconds = parse_duration(written)
    except ValueError:
        return
    assert 0 <= seconds < 1e9
