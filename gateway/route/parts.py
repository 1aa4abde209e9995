"""Which series of a study each part of a fusion answers about. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.study import Series, Study
from gateway.route.inputs import Choice, NoChoice, Wanted, choose
from gateway.route.priors import Priors


@dataclass(frozen=True, kw_only=True)
class RoutedPart:
    """A part of a fusion, as far as routing knows it."""

    name: str  # in the fusion
    run: str  # in its own manifest
    wanted: tuple[Wanted, ...]  # its inputs
    optional: bool  # whether the others can do without it


def choose_for_parts(
    wanted: Sequence[Wanted], parts: Sequence[RoutedPart], study: Study, references: Sequence[Series], priors: Priors
) -> Choice | NoChoice:
    """The series that results lie on, out of ``references``, and for each part one for each of its inputs (`PART/INPUT`).

    Parts may take the same series: of those that fit, the reference itself goes first. A part that may be missing is left
    out where it has none; some part must have one.
    """
    own = choose(wanted, study, references)
    if isinstance(own, NoChoice):
        return own
    picked, flags, said = list(own.series), list(own.flags), [own.reason] if own.reason else []
    for part in parts:
        found = choose(part.wanted, study, study.series, near=own.series[0][1], priors=priors)
        if isinstance(found, NoChoice):
            if not part.optional:
                return NoChoice(reason=f"its part {part.name} ({part.run}) cannot be run: {found.reason}")
            said.append(f"without the part {part.name} ({part.run}): {found.reason}")
            flags.append(f"Without the part {part.name} ({part.run}): {found.reason}.")
            continue
        picked += [(f"{part.name}/{name}", series) for name, series in found.series]
        said += [f"{part.name}: {found.reason}"] if found.reason else []
        flags += [f"{part.name}: {flag}" for flag in found.flags]
    if len(picked) == len(own.series):
        return NoChoice(reason="there is no series for any of its parts")
    return Choice(series=tuple(picked), reason="; ".join(said), flags=tuple(flags))
