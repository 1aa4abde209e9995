"""When a study is complete: a pure decision over the evidence.

C-STORE has no word for "that was all" (PS3.4 annex B), so evidence has to do: no association that carried the study is
open, it ended in good order, nothing has come for a while. The reason is stored as a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.ports import StudyRecord
from gateway.hold.settings import Hold


@dataclass(frozen=True, kw_only=True)
class Release:
    """The study is complete."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """The study may still grow; look again then."""

    until: float  # seconds since the epoch


def decide(record: StudyRecord, hold: Hold, now: float) -> Release | Wait:
    """Weighs what is known of an open study."""
    quiet = max(0.0, now - record.last_stored_at)
    count = f"{record.instances} instance{'s' if record.instances != 1 else ''}"
    if quiet >= hold.limit:
        return Release(reason=f"{count}; upper limit of {hold.limit:g} s reached, evidence incomplete")
    if record.open_associations:
        return Wait(until=record.last_stored_at + hold.limit)
    if hold.association_is_study and record.all_released:
        return Release(
            reason=f"{count}; its association was released, and this sender puts a study into one association"
        )
    if quiet < hold.quiet:
        return Wait(until=record.last_stored_at + hold.quiet)
    ended = "every association released" if record.all_released else "no association open, not all ended in good order"
    return Release(reason=f"{count}; {ended}; quiet for {quiet:.1f} s (at least {hold.quiet:g} s asked)")


def longest(holds: list[Hold], default: Hold) -> Hold:
    """The most patient of several ways to wait, so that no rule sees half a study; the default where no rule asks."""
    if not holds:
        return default
    return Hold(
        quiet=max(hold.quiet for hold in holds),
        association_is_study=all(hold.association_is_study for hold in holds),
        limit=max(hold.limit for hold in holds),
    )


def shortest(holds: list[Hold]) -> Hold:
    """The least patient of several ways to wait: what it does not release, none of them does."""
    return Hold(
        quiet=min(hold.quiet for hold in holds),
        association_is_study=any(hold.association_is_study for hold in holds),
        limit=min(hold.limit for hold in holds),
    )
