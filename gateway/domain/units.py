"""Quantities as people write them: durations."""

from __future__ import annotations

import re

_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|min|h|d)?\s*")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_LONGEST = 1e9  # seconds, some 30 years: more is a slip, and threads cannot wait for it


def parse_duration(value: object) -> float:
    """Seconds of ``5``, ``0.5``, ``500ms``, ``5s``, ``2m``, ``1h`` or ``3d``; raises ValueError for anything else."""
    seconds = _seconds(value)
    if not 0 <= seconds < _LONGEST:
        raise ValueError("a duration must not be negative or longer than 30 years")
    return float(seconds)


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration: write 500ms, 5s, 2m, 1h or 3d")
    return float(match[1]) * _SECONDS[match[2]]
