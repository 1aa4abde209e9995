"""What each piece of evidence says about the instances that are here. Pure.

Evidence that something is missing outweighs any that all is here: sources are behind, lie, or know only their part.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.domain.evidence import Evidence, PerformedStep, SeriesCount, SourceCount
from gateway.domain.ids import SeriesUID

# Series that a study may have and that nobody sends to a model: documents, annotations, plans, derived objects.
_NO_IMAGES = frozenset(
    (
        *("ANN", "AU", "DOC", "ECG", "EPS", "FID", "HD", "KER", "KO", "M3D", "OAM", "PLAN", "PR", "REG", "RESP"),
        *("RTDOSE", "RTPLAN", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SMR", "SR", "SRF", "STAIN"),
        "TEXTUREMAP",
    )
)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two questions about the same instances


class Weight(Enum):
    """Which way a finding points."""

    COMPLETE = "all is here"
    MISSING = "something is not here"
    DOUBT = "something may not be here"
    NOTE = "neither"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one piece of evidence says."""

    kind: str  # `count`, `mpps`, `require` or `geometry`
    weight: Weight
    sentence: str  # without patient data
    detail: str = ""  # for whoever runs the site; not for a reader of results
    asked_at: float | None = None  # it is true of this moment; None where it does not age


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the gateway has of a study."""

    series: Mapping[SeriesUID, int]  # instances of each, without results of our own
    instances: frozenset[str]  # SOP Instance UIDs, all of them
    own_series: frozenset[str] = frozenset()  # Series Instance UIDs of our results


def weigh(evidence: Sequence[Evidence], held: Held) -> list[Finding]:
    """Findings of the newest evidence of each origin; ``evidence`` is in the order in which it came."""
    newest = {_origin(item): item for item in evidence}
    return [
        _weigh_count(item, held) if isinstance(item, SourceCount) else _weigh_step(item, held)
        for item in newest.values()
    ]


def next_question(
    source: str, evidence: Sequence[Evidence], last_stored_at: float, held: Held, settle: float
) -> float | None:
    """When to ask a source (again), in seconds since the epoch; None where it has said that all is here.

    The first time is when nothing has come for ``settle``: an answer from before a later instance proves nothing.
    """
    first = last_stored_at + settle
    answers = [item for item in evidence if isinstance(item, SourceCount) and item.source == source]
    fresh = [item for item in answers if item.asked_at >= first]
    if not fresh:
        return first
    if _weigh_count(fresh[-1], held).weight is Weight.COMPLETE:
        return None
    pause: float = _FIRST_PAUSE * 2 ** min(len(fresh) - 1, 10)
    return fresh[-1].asked_at + min(pause, _LONGEST_PAUSE)


def _origin(item: Evidence) -> tuple[str, str]:
    return ("count", item.source) if isinstance(item, SourceCount) else ("mpps", item.step_uid)


def _weigh_count(answer: SourceCount, held: Held) -> Finding:
    weight, sentence = _compare(answer, held)
    return Finding(kind="count", weight=weight, sentence=sentence, asked_at=answer.asked_at)


def _compare(answer: SourceCount, held: Held) -> tuple[Weight, str]:
    said, listed = answer.sentence(), sum(one.instances for one in answer.series)
    if answer.problem or not (answer.instances or listed):
        return Weight.NOTE, said
    ours = {one.series_uid: one.instances for one in answer.series if one.series_uid in held.series}
    if short := sum(max(0, count - held.series[uid]) for uid, count in ours.items()):
        return Weight.MISSING, f"{said}, {short} of them not here in series that have begun"
    if answer.instances and listed != answer.instances:
        return Weight.NOTE, f"{said}, which do not add up"
    if any(ours.get(uid, 0) < count for uid, count in held.series.items()):
        return Weight.NOTE, f"{said}, fewer than are here"
    others = _never_sent(answer.series, held)
    if images := sum(one.modality not in _NO_IMAGES for one in others):
        return Weight.NOTE, f"{said}; what is here is whole, {images} series never sent"
    return Weight.COMPLETE, f"{said}, all here{f' but {len(others)} series that no model reads' if others else ''}"


def _never_sent(series: Sequence[SeriesCount], held: Held) -> list[SeriesCount]:
    return [
        one
        for one in series
        if one.instances and one.series_uid not in held.series and one.series_uid not in held.own_series
    ]


def _weigh_step(step: PerformedStep, held: Held) -> Finding:
    missing = sum(uid not in held.instances for uid in step.instances)
    said = step.sentence()
    if step.status not in ("COMPLETED", "DISCONTINUED"):
        return Finding(kind="mpps", weight=Weight.MISSING, sentence=said)
    if missing:
        return Finding(kind="mpps", weight=Weight.MISSING, sentence=f"{said}, {missing} not here")
    if step.status == "DISCONTINUED" or not step.instances:
        return Finding(kind="mpps", weight=Weight.NOTE, sentence=said)
    return Finding(kind="mpps", weight=Weight.COMPLETE, sentence=f"{said}, all here")


def weigh_required(required: int, unmet: Collection[str]) -> Finding | None:
    """Whether the series are here that a rule cannot do without; ``unmet`` says in words which are not."""
    if not required:
        return None
    if not unmet:
        return Finding(
            kind="require", weight=Weight.COMPLETE, sentence=f"{required} of {required} required series here"
        )
    here = required - len(unmet)
    return Finding(
        kind="require",
        weight=Weight.MISSING,
        sentence=f"{here} of {required} required series here",
        detail=f"none meets {', '.join(unmet)}",
    )
