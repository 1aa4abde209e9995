"""When a study is complete: a pure decision over the evidence.

C-STORE has no word for "that was all" (PS3.4 annex B), so evidence has to do. In this order:

1. Something is known to be missing (the source counts more, MPPS lists more or is still going on, a required series is
   not here): wait, until the upper limit.
2. Slices seem to be missing between others: wait for them a while, then run with a flag.
3. A trusted witness says that all is here and the senders have finished: release, once nothing has come for a moment.
4. Nothing has come for the quiet time and nobody is connected any more: release, with a flag where the last sender was cut off,
   or brought something that was not taken.

The reason is stored as a sentence that names every piece of evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.ports import StudyRecord
from gateway.hold.evidence import Finding, Weight
from gateway.hold.settings import Hold

_WITNESSES = ("count", "mpps")  # evidence from outside, which a site may choose not to believe


@dataclass(frozen=True, kw_only=True)
class Release:
    """The study goes on."""

    reason: str
    flags: tuple[str, ...] = ()  # what a reader of the results must know


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """The study is incomplete for good; a person must decide."""

    reason: str
    flags: tuple[str, ...] = ()  # what a reader must know of results that a person has made all the same


@dataclass(frozen=True, kw_only=True)
class Wait:
    """The study may still grow; look again then."""

    until: float  # seconds since the epoch


Verdict = Release | Quarantine | Wait


def decide(record: StudyRecord, hold: Hold, now: float, findings: Sequence[Finding] = ()) -> Verdict:
    """Weighs what is known of an open study."""
    case = _Case(record, hold, now, findings)
    if why := case.complete():
        return Release(reason=case.reason(why), flags=() if case.proven else case.flags())
    if why := case.tolerable():
        return Release(reason=case.reason(why), flags=case.flags())
    if not case.rested(hold.limit):
        return Wait(until=case.next_moment())
    why = f"upper limit of {hold.limit:g} s reached, evidence incomplete"
    if hold.at_limit == "quarantine":
        return Quarantine(reason=case.reason(why), flags=case.flags())
    return Release(reason=case.reason(why), flags=case.flags())


class _Case:
    """One study and what is said about it."""

    def __init__(self, record: StudyRecord, hold: Hold, now: float, findings: Sequence[Finding]) -> None:
        self._record, self._hold, self._now, self._findings = record, hold, now, findings
        self._quiet = max(0.0, now - record.last_stored_at)
        believed = [one for one in findings if one.kind not in _WITNESSES or one.kind in hold.trust]
        self._missing = [one for one in believed if one.weight is Weight.MISSING]
        self._doubts = [one for one in believed if one.weight is Weight.DOUBT]
        self._proofs = [one for one in believed if self._proves(one)]

    def _proves(self, one: Finding) -> bool:
        # What a source had before the last instances came says nothing about what it has now.
        is_fresh = one.asked_at is None or one.asked_at >= self._record.last_stored_at + self._hold.settle
        return one.weight is Weight.COMPLETE and one.kind in self._hold.trust and is_fresh

    def rested(self, seconds: float) -> bool:
        """Whether nothing has come for so long; reckoned as `next_moment` reckons, to the last bit."""
        return self._now >= self._record.last_stored_at + seconds

    @property
    def proven(self) -> bool:
        """Whether a trusted witness says that all is here."""
        return bool(self._proofs)

    def complete(self) -> str:
        """Why the study is complete; empty where it is not."""
        record, hold = self._record, self._hold
        if self._missing or self._doubts:
            return ""
        if self._proofs and self.rested(hold.quiet if record.open_associations else hold.settle):
            return f"nothing has come for {self._quiet:.1f} s"
        if record.open_associations:
            return ""
        if hold.association_is_study and record.all_released:
            return "this sender puts a study into one association"
        if self.rested(hold.quiet):
            return f"quiet for {self._quiet:.1f} s (at least {hold.quiet:g} s asked)"
        return ""

    def tolerable(self) -> str:
        """Why the study is run although slices seem to be missing; empty where it is not."""
        end = self._end_of_doubt()
        if end is None or self._now < end:
            return ""
        return f"waited {self._quiet:.1f} s for missing slices"

    def next_moment(self) -> float:
        """When time alone may change the verdict."""
        last, hold = self._record.last_stored_at, self._hold
        moments = [last + hold.limit]
        if (end := self._end_of_doubt()) is not None:
            moments.append(end)
        if not self._missing and not self._doubts:
            if not self._record.open_associations or self._proofs:
                moments.append(last + hold.quiet)
            if not self._record.open_associations and self._proofs:
                moments.append(last + hold.settle)
        return min(moment for moment in moments if moment > self._now)

    def flags(self) -> tuple[str, ...]:
        """What a reader of results on an incomplete study must know."""
        problems = [one.sentence for one in (*self._missing, *self._doubts)]
        if self._record.open_associations:
            problems.append("the sender had not finished")
        elif not self._record.last_released:
            problems.append("the last sender was cut off, or brought something that was not taken")
        return (f"The study may be incomplete: {'; '.join(problems)}.",) if problems else ()

    def reason(self, why: str) -> str:
        """The sentence that is kept."""
        count = self._record.instances
        said = [one.sentence + (f" ({one.detail})" if one.detail else "") for one in self._findings]
        return "; ".join([f"{count} instance{'' if count == 1 else 's'}", self._senders(), *said, why])

    def _end_of_doubt(self) -> float | None:
        record, hold = self._record, self._hold
        if not self._doubts or self._missing or record.open_associations or hold.at_limit == "quarantine":
            return None
        return record.last_stored_at + min(max(hold.gap, hold.quiet), hold.limit)

    def _senders(self) -> str:
        record = self._record
        if record.open_associations:
            return f"{record.open_associations} association{'' if record.open_associations == 1 else 's'} still open"
        if not record.all_released:
            return "no association open, not all ended in good order"
        return "every association released"


def decide_together(record: StudyRecord, wants: Sequence[tuple[Hold, Sequence[Finding]]], now: float) -> Verdict:
    """The verdict for all rules that a study meets: the most patient counts, so that none of them sees half a study."""
    verdicts = [decide(record, hold, now, findings) for hold, findings in wants]
    waits = [one.until for one in verdicts if isinstance(one, Wait)]
    if waits:
        return Wait(until=min(waits))
    held_back = next((one for one in verdicts if isinstance(one, Quarantine)), None)
    if held_back:
        return held_back
    releases = [one for one in verdicts if isinstance(one, Release)]
    most = max(releases, key=lambda one: len(one.flags))
    return Release(reason=most.reason, flags=tuple(dict.fromkeys(flag for one in releases for flag in one.flags)))


def earliest(record: StudyRecord, holds: Sequence[Hold]) -> float:
    """The first moment (seconds since the epoch) at which any of these ways to wait might release a study.

    Told without its instances, so that a study that is still coming costs nothing.
    """
    if record.open_associations:
        return record.last_stored_at + min(hold.quiet for hold in holds)
    if record.all_released and any(hold.association_is_study for hold in holds):
        return 0.0  # no time has to pass, not even for a clock that was put back
    return record.last_stored_at + min(min(hold.settle, hold.quiet) for hold in holds)
