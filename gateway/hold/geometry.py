"""Whether slices are missing in the middle of a series, judged by their positions (PS3.3 C.7.6.2). Pure.

Only a suspicion: localizers, several stacks in one series and uneven slices are all lawful. So it speaks only where the
other slices are evenly spaced, and a series without a gap proves nothing: the last slices may still be missing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

from gateway.domain.study import Header, Series
from gateway.hold.evidence import Finding, Weight

_FEWEST = 5  # slices in one orientation, to speak of a spacing at all
_EVEN = 0.05  # of the spacing; PS3.3 gives no tolerance, scanners round positions to 0.01 mm or so
_REGULAR = 0.6  # part of the steps that must be even
_SAME = 0.01  # mm; repeated positions are phases, echoes or directions of one slice


def weigh_geometry(series: Sequence[Series]) -> Finding | None:
    """What the slice positions of a study say; None where they say nothing."""
    judged = [
        missing for item in series if (missing := missing_slices([one.header for one in item.instances])) is not None
    ]
    gaps = [missing for missing in judged if missing]
    if gaps:
        slices = "1 slice seems" if sum(gaps) == 1 else f"{sum(gaps)} slices seem"
        sentence = f"{slices} to be missing between others in {len(gaps)} of {len(series)} series"
        return Finding(kind="geometry", weight=Weight.DOUBT, sentence=sentence)
    if judged:
        sentence = f"no gap between slices in {len(judged)} of {len(series)} series"
        return Finding(kind="geometry", weight=Weight.NOTE, sentence=sentence)
    return None


def missing_slices(headers: Sequence[Header]) -> int | None:
    """How many slices seem to be missing in a series of single-frame images; None where that cannot be said."""
    stacks: dict[tuple[float, ...], list[Header]] = {}
    for header in headers:
        if len(header.orientation) == 6 and len(header.position) == 3 and header.frames == 1:
            stacks.setdefault(tuple(round(cosine, 2) for cosine in header.orientation), []).append(header)
    judged = [missing for stack in stacks.values() if (missing := _missing_in_stack(stack)) is not None]
    return sum(judged) if judged else None


def _missing_in_stack(stack: Sequence[Header]) -> int | None:
    depths = _depths(stack)
    if len(depths) < _FEWEST:
        return None
    steps = [after - before for before, after in pairwise(depths)]
    spacing = statistics.median(steps)
    counts = [step / spacing for step in steps]
    if sum(abs(count - 1) <= _EVEN for count in counts) < _REGULAR * len(counts):
        return None
    if any(abs(count - round(count)) > _EVEN * max(1, round(count)) for count in counts):
        return None  # uneven, or two stacks beside each other
    gaps = [round(count) - 1 for count in counts if round(count) > 1]
    # A hole larger than a quarter of what is there is rather the room between two stacks.
    return None if any(gap > max(2, len(depths) // 4) for gap in gaps) else sum(gaps)


def _depths(stack: Sequence[Header]) -> list[float]:
    """Distinct distances along the normal, mm, ascending."""
    normal = _cross(stack[0].orientation[:3], stack[0].orientation[3:])
    found: list[float] = []
    for depth in sorted(sum(n * p for n, p in zip(normal, header.position, strict=True)) for header in stack):
        if not found or depth - found[-1] > _SAME:
            found.append(depth)
    return found


def _cross(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
