"""When what can wait may run."""

from __future__ import annotations

from datetime import time

import pytest

from gateway.domain.job import Priority
from gateway.submit.settings import JobSettings


@pytest.mark.parametrize(
    ("hours", "clock", "inside"),
    [
        (None, time(12), True),
        ("20:00-06:00", time(23), True),
        ("20:00-06:00", time(5, 59), True),
        ("20:00-06:00", time(6), False),
        ("12:00-13:00", time(12, 30), True),
        ("12:00-13:00", time(13), False),
    ],
)
def test_hours(hours: str | None, clock: time, inside: bool) -> None:
    """Over midnight too; without hours at any time."""
    least = JobSettings(off_peak=hours).least_priority(clock)
    assert (least is Priority.OFF_PEAK) is inside
