"""Goes through the studies that wait, gathers what is known of each, and has it weighed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.domain.each import Failures
from gateway.domain.evidence import Evidence
from gateway.domain.ids import AETitle, StudyUID
from gateway.domain.ports import Clock, EvidenceLedger, StudyRecord
from gateway.domain.study import Study
from gateway.hold.assembly import Verdict, decide_together, earliest
from gateway.hold.evidence import Finding, Held, next_question, weigh, weigh_required
from gateway.hold.geometry import weigh_geometry
from gateway.hold.settings import Hold

_DRIFT = 10.0  # seconds by which the clocks of receivers and gateway may differ


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one rule wants of a study before it may be released."""

    hold: Hold
    required: int = 0  # how many series it cannot do without
    unmet: tuple[str, ...] = ()  # those that are not here, in words


class Inquiry(Protocol):
    """Asks one source how much it has, away from everything that must not wait."""

    @property
    def source(self) -> str:
        """Its name in evidence."""
        ...

    def ask(self, studies: Sequence[StudyUID]) -> None:
        """Says which studies are to be asked about now, the most urgent first; never waits."""
        ...


class HoldingLedger(EvidenceLedger, Protocol):
    """What of the ledger it needs."""

    def open_studies(self) -> Sequence[StudyRecord]:
        """Studies that wait to be released."""
        ...

    def study(self, study: StudyUID) -> Study:
        """All instances of a study; raises NotFound."""
        ...

    def put_back(self, study: StudyUID, now: float) -> None:
        """The clock was put back: the last instance of an open study counts as stored now."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What was read of a study; true as long as nothing comes."""

    state: tuple[int, int]  # revision, and number of evidences
    wishes: Sequence[Wish]
    held: Held
    geometry: Finding | None
    evidence: Sequence[Evidence]
    inquiry: Inquiry | None


class Holder:
    """Says of every open study whether it may go on."""

    def __init__(
        self,
        ledger: HoldingLedger,
        clock: Clock,
        *,
        holds: Sequence[Hold],
        wishes: Callable[[Study], Sequence[Wish]],
        inquiry_of: Callable[[AETitle, str], Inquiry | None] = lambda _title, _address: None,
        inquiries: Sequence[Inquiry] = (),
    ) -> None:
        """``holds`` are all ways to wait that a study may meet, ``wishes`` those that one does meet, at least one."""
        self._ledger, self._clock = ledger, clock
        self._holds, self._wishes = holds, wishes
        self._inquiry_of, self._inquiries = inquiry_of, inquiries
        self._known: dict[StudyUID, _Known] = {}
        self.next_look = 0.0
        """When time alone may next release a study or make a source worth asking, in seconds since the epoch."""

    def verdicts(self) -> Iterator[tuple[StudyRecord, Verdict]]:
        """Every open study that could be released by now, with what the evidence says; asks sources on the way.

        Raises at the end what the first that could not be read has raised.
        """
        now = self._clock.now()
        records = [self._in_our_time(record, now) for record in self._ledger.open_studies()]
        soon = {record.uid: earliest(record, self._holds) for record in records}
        self.next_look = min((at for at in soon.values() if at > now), default=float("inf"))
        due = [record for record in records if soon[record.uid] <= now]
        failures, known = Failures(), dict[StudyUID, _Known]()
        for record in due:
            with failures.apart():
                known[record.uid] = self._read(record)
        self._known = known
        self._ask([record for record in due if record.uid in known], now)
        for record in due:
            if record.uid in known:
                yield record, decide_together(record, _wants(known[record.uid]), now)
        failures.tell()

    def _in_our_time(self, record: StudyRecord, now: float) -> StudyRecord:
        """Where the clock was put back, a study would wait until it had caught up: its quiet time begins again instead."""
        if record.last_stored_at <= now + _DRIFT:
            return record
        self._ledger.put_back(record.uid, now)
        return replace(record, last_stored_at=now)

    def _read(self, record: StudyRecord) -> _Known:
        known = self._known.get(record.uid)
        if known and known.state == (record.revision, record.evidence):
            return known
        same = known if known and known.state[0] == record.revision else None
        evidence = self._ledger.evidence(record.uid) if record.evidence else ()
        state = (record.revision, record.evidence)
        if same:
            return _Known(**(vars(same) | {"state": state, "evidence": evidence}))
        study = self._ledger.study(record.uid)
        return _Known(
            state=state,
            wishes=self._wishes(study),
            held=_held(study, self._ledger.own_series(record.uid)),
            geometry=weigh_geometry(study.series),
            evidence=evidence,
            inquiry=self._find_inquiry(record.uid),
        )

    def _find_inquiry(self, study: StudyUID) -> Inquiry | None:
        if not self._inquiries:
            return None
        found = (self._inquiry_of(title, address) for title, address in self._ledger.senders(study))
        return next((inquiry for inquiry in found if inquiry), None)

    def _ask(self, records: Sequence[StudyRecord], now: float) -> None:
        due: Mapping[int, list[StudyUID]] = {id(inquiry): [] for inquiry in self._inquiries}
        for record in records:
            known = self._known[record.uid]
            at = _ask_at(record, known)
            if at is None or known.inquiry is None:
                continue
            if at <= now:
                due[id(known.inquiry)].append(record.uid)
            else:
                self.next_look = min(self.next_look, at)
        for inquiry in self._inquiries:
            inquiry.ask(due[id(inquiry)])


def _wants(known: _Known) -> list[tuple[Hold, list[Finding]]]:
    """Each way to wait, with what is said for and against it."""
    said = weigh(known.evidence, known.held) + ([known.geometry] if known.geometry else [])
    return [(wish.hold, said + _required(wish)) for wish in known.wishes]


def _ask_at(record: StudyRecord, known: _Known) -> float | None:
    """When the source is to be asked; while somebody is still connected an early answer would release nothing."""
    believers = [wish.hold for wish in known.wishes if "count" in wish.hold.trust]
    if known.inquiry is None or not believers:
        return None
    settle = max(max(hold.settle, hold.quiet if record.open_associations else 0.0) for hold in believers)
    return next_question(known.inquiry.source, known.evidence, record.last_stored_at, known.held, settle)


def _held(study: Study, own_series: frozenset[str]) -> Held:
    return Held(
        series={series.uid: len(series.instances) for series in study.series},
        instances=frozenset(instance.header.sop_instance_uid for instance in study.instances),
        own_series=own_series,
    )


def _required(wish: Wish) -> list[Finding]:
    found = weigh_required(wish.required, wish.unmet)
    return [found] if found else []
