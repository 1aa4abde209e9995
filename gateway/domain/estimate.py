"""What a job will take, from what earlier jobs of the same model's build have taken. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import linear_regression, median

LIKE = 1.25
"""Volumes whose sizes differ by no more than this factor count as one size."""

REACH = 2.0
"""How much larger than any that was seen a volume may be for its memory to be estimated: a job may wait for it in vain."""

MEMORY = 50
"""Runs of a build that are remembered."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one job took."""

    voxels: int  # of its input volume
    seconds: float  # from its start to its result
    peak_mib: int  # the most that the model's process held; 0 where that could not be seen


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job will take, as far as can be told."""

    seconds: float | None = None
    memory_mib: int | None = None


UNKNOWN = Estimate()
"""Of a build that has given no result yet."""


def estimate(runs: Sequence[Run], voxels: int) -> Estimate:
    """By runs on volumes of like size: their median of seconds and the most memory. Without any such, by a line through all
    runs, which never falls with size; memory lies above it by as much as any run did.
    """
    seconds = [(run.voxels, run.seconds) for run in runs]
    memory = [(run.voxels, float(run.peak_mib)) for run in runs if run.peak_mib]
    if voxels > REACH * max((size for size, _ in memory), default=0):
        memory = []
    most = _expected(memory, voxels, typical=max, above=True)
    return Estimate(
        seconds=_expected(seconds, voxels, typical=median, above=False),
        memory_mib=None if most is None else math.ceil(most),
    )


def _expected(
    known: Sequence[tuple[int, float]], voxels: int, *, typical: Callable[[Iterable[float]], float], above: bool
) -> float | None:
    if not known:
        return None
    like = [value for size, value in known if size <= voxels * LIKE and voxels <= size * LIKE]
    if like:
        return float(typical(like))
    sizes, values = zip(*known, strict=True)
    if len(set(sizes)) == 1:
        return float(typical(values))
    slope, intercept = linear_regression(sizes, values)
    if slope <= 0:
        return float(typical(values))
    excess = max(value - slope * size - intercept for size, value in known) if above else 0.0
    return max(float(slope * voxels + intercept + excess), float(min(values)))
