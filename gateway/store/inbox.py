"""The ledger's part for messages from the EHR: durable first, read later, each of them once."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from gateway.domain.context import Key, KeyKind, Merge, keys_of
from gateway.domain.errors import NotFound
from gateway.domain.inbound import Inbound, InboundDraft, Reading
from gateway.domain.ports import Clock
from gateway.domain.states import InboundEvent, InboundState, next_inbound_state
from gateway.store import rows, schema
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
        with writing(self.engine) as connection:
            return [self._add_message(connection, draft) for draft in drafts]

    def _add_message(self, connection: Connection, draft: InboundDraft) -> str:
        now = self.clock.now()
        columns = (_INBOUND.c.id, _INBOUND.c.sha256, _INBOUND.c.received_at)
        same = select(*columns).where(_INBOUND.c.identity == draft.identity)
        known = connection.execute(same).all()
        for row in known:
            if row.sha256 == draft.sha256:
                again = update(_INBOUND).where(_INBOUND.c.id == row.id).values(copies=_INBOUND.c.copies + 1)
                connection.execute(again)
                return "duplicate"
        state = InboundState.RECEIVED
        values = dataclasses.asdict(draft) | {"received_at": now}
        contradicted = any(now - row.received_at < _COUNTED_ANEW for row in known)
        if contradicted:
            state = next_inbound_state(state, InboundEvent.CONTRADICTED)
            values["reason"] = "its sender has used this MSH-10 for another message before"
        connection.execute(insert(_INBOUND).values(**values, state=state.value))
        return "conflict" if contradicted else "new"

    def unread_messages(self, limit: int) -> Sequence[Inbound]:
        """Messages that wait to be read, oldest first."""
        columns = (_INBOUND.c.id, _INBOUND.c.received_at, _INBOUND.c.raw, _INBOUND.c.file)
        query = select(*columns).where(_INBOUND.c.state == InboundState.RECEIVED.value).order_by(_INBOUND.c.id)
        with reading(self.engine) as connection:
            found = connection.execute(query.limit(limit)).all()
        return [Inbound(id=row.id, received_at=row.received_at, raw=row.raw, file=row.file) for row in found]

    def settle_messages(self, readings: Sequence[Reading]) -> None:
        """What messages say counts from now on; the studies it may concern are to be linked anew. One transaction."""
        with writing(self.engine) as connection:
            for item in readings:
                self._settle_message(connection, item)

    def replay_message(self, message: int) -> None:
        """A message that was not understood, not used or contradicted is read again; raises NotFound, IllegalTransition."""
        with writing(self.engine) as connection:
            self._move_message(connection, message, InboundEvent.REPLAYED, reason="")

    def _settle_message(self, connection: Connection, item: Reading) -> None:
        if not self._is_unread(connection, item.message_id):
            return  # read already, by a gateway that was killed before it could tell
        self._move_message(connection, item.message_id, item.event, kind=item.kind, reason=item.reason)
        last = 0
        keys: set[Key] = set()
        for position, fact in enumerate(item.facts):
            values = rows.fact_values(fact) | {"message_id": item.message_id, "position": position}
            last = int(connection.execute(insert(_FACTS).values(**values)).inserted_primary_key[0])  # type: ignore[index]
            own = keys_of(fact.body)
            keys.update(own)
            if own:
                named = [{"fact_id": last, "kind": key.kind.value, "value": key.value} for key in own]
                connection.execute(insert(_FACT_KEYS), named)
        if keys:
            self._touch(connection, with_merged(connection, keys), last)

    def _touch(self, connection: Connection, keys: Collection[Key], fact: int) -> None:
        for kind in KeyKind:
            values = [key.value for key in keys if key.kind is kind]
            if values:
                found = select(_STUDY_KEYS.c.study_uid).where(
                    _STUDY_KEYS.c.kind == kind.value, _STUDY_KEYS.c.value.in_(values)
                )
                connection.execute(update(_STUDIES).where(_STUDIES.c.uid.in_(found)).values(touched=fact))

    def _is_unread(self, connection: Connection, message: int) -> bool:
        state = connection.execute(select(_INBOUND.c.state).where(_INBOUND.c.id == message)).scalar_one()
        return bool(state == InboundState.RECEIVED.value)

    def _move_message(self, connection: Connection, message: int, event: InboundEvent, **values: Any) -> None:
        state = connection.execute(select(_INBOUND.c.state).where(_INBOUND.c.id == message)).scalar_one_or_none()
        if state is None:
            raise NotFound(f"no message {message}")
        after = next_inbound_state(InboundState(state), event)
        connection.execute(update(_INBOUND).where(_INBOUND.c.id == message).values(state=after.value, **values))


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
