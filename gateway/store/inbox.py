"""The ledger's part for messages from the EHR: durable first, read later, each of them once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from gateway.domain.context import Key, KeyKind, Merge, keys_of
from gateway.domain.errors import NotFound
from gateway.domain.ids import JobId
from gateway.domain.inbound import ApplicationAnswer, Inbound, InboundDraft, Reading
from gateway.domain.ports import Clock
from gateway.domain.states import InboundEvent, InboundState, next_inbound_state
from gateway.store import rows, schema
from gateway.store.deferred import hear_application
from gateway.store.engine import reading, writing

_INBOUND, _FACTS, _FACT_KEYS, _STUDY_KEYS, _STUDIES = (
    schema.inbound,
    schema.facts,
    schema.fact_keys,
    schema.study_keys,
    schema.studies,
)

_COUNTED_ANEW = 12 * 3600.0  # seconds after which a sender may use an MSH-10 again: some count anew each day


class Inbox:
    """Implements `gateway.domain.ports.InboxLedger`."""

    engine: Any
    clock: Clock

    def add_messages(self, drafts: Sequence[InboundDraft]) -> Sequence[str]:
        """Makes messages durable in one transaction; says `new`, `duplicate` or `conflict` for each."""
        now = self.clock.now()
        columns = (_INBOUND.c.identity, _INBOUND.c.sha256, _INBOUND.c.received_at)
        same = select(*columns).where(_INBOUND.c.identity.in_({draft.identity for draft in drafts}))
        with writing(self.engine) as connection:
            known: dict[str, dict[str, float]] = {}  # who and what -> content and when it came
            for row in connection.execute(same).all():
                known.setdefault(row.identity, {})[row.sha256] = row.received_at
            came = [_came(draft, known.setdefault(draft.identity, {}), now) for draft in drafts]
            fresh = [_values(draft, how, now) for draft, how in zip(drafts, came, strict=True) if how != "duplicate"]
            if fresh:
                connection.execute(insert(_INBOUND), fresh)
            for draft, how in zip(drafts, came, strict=True):
                if how == "duplicate":
                    mine = (_INBOUND.c.identity == draft.identity, _INBOUND.c.sha256 == draft.sha256)
                    connection.execute(update(_INBOUND).where(*mine).values(copies=_INBOUND.c.copies + 1))
        return came

    def unread_messages(self, limit: int) -> Sequence[Inbound]:
        """Messages that wait to be read, oldest first."""
        columns = (_INBOUND.c.id, _INBOUND.c.received_at, _INBOUND.c.raw, _INBOUND.c.file)
        query = select(*columns).where(_INBOUND.c.state == InboundState.RECEIVED.value).order_by(_INBOUND.c.id)
        with reading(self.engine) as connection:
            found = connection.execute(query.limit(limit)).all()
        return [Inbound(id=row.id, received_at=row.received_at, raw=row.raw, file=row.file) for row in found]

    def settle_messages(self, readings: Sequence[Reading]) -> Sequence[JobId]:
        """What messages say counts from now on; the studies it may concern are to be linked anew. One transaction. Returns
        the jobs of whose delivered messages an application has said that it refuses them."""
        ids = [item.message_id for item in readings]
        unread = select(_INBOUND.c.id).where(_INBOUND.c.id.in_(ids), _INBOUND.c.state == InboundState.RECEIVED.value)
        with writing(self.engine) as connection:
            waiting = set(connection.execute(unread).scalars())  # the rest was read by a gateway that was killed then
            items = [item for item in readings if item.message_id in waiting]
            if items:
                connection.execute(_SETTLE, [_settled(item) for item in items])
                self._add_facts(connection, items)
            return self._heard(connection, [answer for item in items for answer in item.answers])

    def hear_applications(self, answers: Sequence[ApplicationAnswer]) -> Sequence[JobId]:
        """Application acknowledgements that came on a connection of our own; returns the same."""
        with writing(self.engine) as connection:
            return self._heard(connection, answers)

    def _heard(self, connection: Connection, answers: Sequence[ApplicationAnswer]) -> list[JobId]:
        now = self.clock.now()
        return [job for answer in answers for job in hear_application(connection, answer, now)]

    def replay_message(self, message: int) -> None:
        """A message that was not understood, not used or contradicted is read again; raises NotFound, IllegalTransition."""
        with writing(self.engine) as connection:
            self._move_message(connection, message, InboundEvent.REPLAYED, reason="")

    def _add_facts(self, connection: Connection, items: Sequence[Reading]) -> None:
        last = connection.execute(select(func.max(_FACTS.c.id))).scalar() or 0
        facts, named, keys = [], [], set[Key]()
        for item in items:
            for position, fact in enumerate(item.facts):
                last += 1
                place = {"id": last, "message_id": item.message_id, "position": position}
                facts.append(rows.fact_values(fact) | place)
                own = keys_of(fact.body)
                named += [{"fact_id": last, "kind": key.kind.value, "value": key.value} for key in own]
                keys.update(own)
        if facts:
            connection.execute(insert(_FACTS), facts)
        if named:
            connection.execute(insert(_FACT_KEYS), named)
            self._touch(connection, with_merged(connection, keys), last)

    def _touch(self, connection: Connection, keys: Collection[Key], fact: int) -> None:
        for kind in KeyKind:
            values = [key.value for key in keys if key.kind is kind]
            if values:
                found = select(_STUDY_KEYS.c.study_uid).where(
                    _STUDY_KEYS.c.kind == kind.value, _STUDY_KEYS.c.value.in_(values)
                )
                connection.execute(update(_STUDIES).where(_STUDIES.c.uid.in_(found)).values(touched=fact))

    def _move_message(self, connection: Connection, message: int, event: InboundEvent, **values: Any) -> None:
        state = connection.execute(select(_INBOUND.c.state).where(_INBOUND.c.id == message)).scalar_one_or_none()
        if state is None:
            raise NotFound(f"no message {message}")
        after = next_inbound_state(InboundState(state), event)
        connection.execute(update(_INBOUND).where(_INBOUND.c.id == message).values(state=after.value, **values))


_SETTLE = (
    update(_INBOUND)
    .where(_INBOUND.c.id == bindparam("message_id"))
    .values(state=bindparam("new_state"), kind=bindparam("new_kind"), reason=bindparam("new_reason"))
)


def _settled(item: Reading) -> dict[str, Any]:
    after = next_inbound_state(InboundState.RECEIVED, item.event)
    return {
        "message_id": item.message_id,
        "new_state": after.value,
        "new_kind": item.kind,
        "new_reason": item.reason,
    }


def _came(draft: InboundDraft, known: dict[str, float], now: float) -> str:
    """How a message came, by what came before from its sender under its MSH-10; remembers it."""
    if draft.sha256 in known:
        return "duplicate"
    contradicts = any(now - received_at < _COUNTED_ANEW for received_at in known.values())
    known[draft.sha256] = now
    return "conflict" if contradicts else "new"


def _values(draft: InboundDraft, how: str, now: float) -> dict[str, Any]:
    state, reason = InboundState.RECEIVED, ""
    if how == "conflict":
        state = next_inbound_state(state, InboundEvent.CONTRADICTED)
        reason = "its sender has used this MSH-10 for another message before"
    return vars(draft) | {"received_at": now, "state": state.value, "reason": reason}


def with_merged(connection: Connection, keys: Collection[Key]) -> set[Key]:
    """The keys, and those of every patient that became one of theirs by merges, or that theirs became."""
    known = set(keys)
    new = {key.value for key in known if key.kind is KeyKind.PATIENT}
    while new:
        of_patients = select(_FACT_KEYS.c.fact_id).where(
            _FACT_KEYS.c.kind == KeyKind.PATIENT.value, _FACT_KEYS.c.value.in_(sorted(new))
        )
        merges = select(_FACTS.c.id).where(_FACTS.c.kind == rows.fact_kind(Merge), _FACTS.c.id.in_(of_patients))
        query = select(_FACT_KEYS.c.value).where(_FACT_KEYS.c.fact_id.in_(merges)).distinct()
        found = {Key(KeyKind.PATIENT, value) for value in connection.execute(query).scalars()}
        new = {key.value for key in found - known}
        known |= found
    return known
