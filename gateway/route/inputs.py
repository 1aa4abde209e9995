"""Which series of a study a model takes, one for each input of its manifest, and why. Pure.

Several series may fit an input: original images go before derived ones, fine slices before coarse, more before fewer, then the
lower series number; beside a reference, series in its frame of reference go first of all. Of priors the newest study goes first.
The reason says that there was a choice.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gateway.bundle.input import Input, Instead
from gateway.domain.study import Header, Series, Study
from gateway.route.priors import NO_PRIORS, Priors
from gateway.route.rules import Expression

_MOST_TRIED = 12  # series for one input
_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An input of a manifest with its selector compiled."""

    input: Input
    select: Expression

    @property
    def optional(self) -> bool:
        """Whether the model can do without it."""
        return self.input.missing == "zeros"

    @property
    def prior(self) -> bool:
        """Whether it takes a series of an earlier study."""
        return self.input.study == "prior"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was picked."""

    series: tuple[tuple[str, Series], ...]  # name of the input, and its series; the reference first
    reason: str  # which, where there was a choice
    flags: tuple[str, ...]  # what a reader of the result must know


@dataclass(frozen=True, kw_only=True)
class NoChoice:
    """Why nothing was picked, and which model may take its place."""

    reason: str
    instead: str = ""


def unfit(wanted: Wanted, study: Study, series: Series) -> str | None:
    """Why an input does not take a series, or None where it does; what only pixels can tell is judged when loading."""
    limits, first = wanted.input, series.first
    if first.modality not in limits.modality:
        return f"modality {first.modality or 'unknown'} is not {' or '.join(limits.modality)}"
    if all("LOCALIZER" in instance.header.image_type[2:] for instance in series.instances):
        return "its images are localizers by their Image Type"  # PS3.3 C.8.2.1.1.1; planned on, not diagnosed from
    slices = sum(instance.header.frames for instance in series.instances)
    if slices < limits.geometry.slices.min:
        return f"{slices} slices, at least {limits.geometry.slices.min} needed"
    if slices > limits.geometry.slices.max:
        return f"{slices} slices, at most {limits.geometry.slices.max} taken"
    if limits.plane != "any" and (plane := plane_of(first)) not in ("", limits.plane):
        return f"the slices are {plane}, not {limits.plane}"
    if limits.contrast != "any" and (limits.contrast == "with") != bool(first.contrast_agent.strip()):
        return f"images {'with' if limits.contrast == 'with' else 'without'} contrast agent are wanted"
    if not wanted.select.holds(study, series):
        return "the manifest's series selector says no"
    return None


def choose(
    wanted: Sequence[Wanted],
    study: Study,
    references: Sequence[Series],
    near: Series | None = None,
    priors: Priors = NO_PRIORS,
) -> Choice | NoChoice:
    """One series for each input; the first input takes one of ``references``, no series stands for two inputs.

    Of those that fit the first, ``near`` itself goes before others, and its frame of reference before other frames.
    """
    candidates = [_ranked(wanted[0], study, references)]
    if near is not None:
        home = near.first.frame_of_reference_uid
        candidates[0].sort(key=lambda item: (item.uid != near.uid, item.first.frame_of_reference_uid != home))
    candidates += [
        [item for one in _studies(each, study, priors) for item in _ranked(each, one, one.series)][:_MOST_TRIED]
        for each in wanted[1:]
    ]
    for each, found in zip(wanted, candidates, strict=True):
        if not found and not each.optional:
            return _without(each, study, priors)
    picked = next(_assignments(wanted, candidates, ()), None)
    if picked is None:
        names = ", ".join(each.input.name for each in wanted)
        return NoChoice(reason=f"there are fewer series than inputs ({names}) that they fit")
    pairs = list(zip(wanted, picked, strict=True))
    return Choice(
        series=tuple((each.input.name, series) for each, series in pairs if series is not None),
        reason="; ".join(
            f"{each.input.name}: series {series.first.series_number or series.uid}, the best of {len(found)}"
            for (each, series), found in zip(pairs, candidates, strict=True)
            if series is not None and len(found) > 1
        ),
        flags=tuple(
            f"There was no series for the input {each.input.name} ({_nearest(each, study, priors)}): the model ran without it."
            for each, series in pairs
            if series is None
        ),
    )


def _studies(wanted: Wanted, study: Study, priors: Priors) -> tuple[Study, ...]:
    """Whose series an input may take; each is judged as one of its own study."""
    return priors.studies if wanted.prior else (study,)


def plane_of(header: Header) -> str:
    """The anatomical plane that slices are nearest to (PS3.3 C.7.6.2.1.1); empty where the header does not say."""
    if len(header.orientation) != 6:
        return ""
    normal = [abs(value) for value in _normal(header)]
    axis = normal.index(max(normal))
    return next(name for name, number in _AXES.items() if number == axis)


def spacing_of(series: Series) -> float | None:
    """The coarsest distance between neighbouring voxels in mm, by the headers of single-frame images."""
    placed = [one.header for one in series.instances if len(one.header.position) == 3]
    if len(placed) < 2 or len(placed[0].orientation) != 6 or not placed[0].pixel_spacing:
        return None
    normal = _normal(placed[0])
    depths = sorted(sum(n * p for n, p in zip(normal, one.position, strict=True)) for one in placed)
    return max(statistics.median(after - before for before, after in pairwise(depths)), *placed[0].pixel_spacing)


def _ranked(wanted: Wanted, study: Study, series: Sequence[Series]) -> list[Series]:
    fitting = [item for item in series if unfit(wanted, study, item) is None and _fine_enough(wanted, item)]
    return sorted(fitting, key=_rank)[:_MOST_TRIED]


def _fine_enough(wanted: Wanted, series: Series) -> bool:
    spacing = spacing_of(series)
    return spacing is None or wanted.input.geometry.spacing.holds(spacing)


def _rank(series: Series) -> tuple[bool, float, int, int, str]:
    first = series.first
    number = int(first.series_number) if first.series_number.strip().isdigit() else 10**9
    derived = "DERIVED" in first.image_type
    return derived, round(spacing_of(series) or 1e9, 2), -len(series.instances), number, series.uid


def _assignments(
    wanted: Sequence[Wanted], candidates: Sequence[Sequence[Series]], picked: tuple[Series | None, ...]
) -> Iterator[tuple[Series | None, ...]]:
    """Ways to give each input a series of its own, the best first; an input that may be missing goes without at last."""
    at = len(picked)
    if at == len(wanted):
        yield picked
        return
    left = [item for item in candidates[at] if item not in picked]
    if picked and picked[0] is not None and not wanted[at].prior:
        home = picked[0].first.frame_of_reference_uid
        left.sort(key=lambda item: item.first.frame_of_reference_uid != home)  # keeps the order of ranks otherwise
    for item in [*left, *([None] if wanted[at].optional else [])]:
        yield from _assignments(wanted, candidates, (*picked, item))


def _without(wanted: Wanted, study: Study, priors: Priors) -> NoChoice:
    reason = f"no series for the input {wanted.input.name} ({_nearest(wanted, study, priors)})"
    instead = wanted.input.missing
    return NoChoice(reason=reason, instead=instead.run if isinstance(instead, Instead) else "")


def _nearest(wanted: Wanted, study: Study, priors: Priors) -> str:
    """Why the series that comes nearest does not fit."""
    if wanted.prior and not priors.studies:
        return priors.why
    reasons = dict.fromkeys(
        unfit(wanted, one, item) or "its slices are too coarse or too fine"
        for one in _studies(wanted, study, priors)
        for item in one.series
    )
    return next((why for why in reasons if not why.startswith("modality")), next(iter(reasons), "there is no series"))


def _normal(header: Header) -> tuple[float, float, float]:
    a, b = header.orientation[:3], header.orientation[3:]
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
