"""Messages from the EHR: durable, then acknowledged, then read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from gateway.domain.errors import NotFound
from gateway.domain.ids import Sha256, digest
from gateway.domain.inbound import Inbound, InboundDraft, Reading
from gateway.domain.ports import InboxLedger, Spool
from gateway.domain.states import InboundEvent
from gateway.hl7.answer import ACCEPTED, Reply
from gateway.hl7.head import MessageUnreadable, decode, read_head
from gateway.hl7.server import Received
from gateway.observe.logs import log
from gateway.orders.patients import Unreadable
from gateway.orders.reading import Conventions, read

_IN_ROW = 1 << 16  # bytes; a larger message is a file of the spool
_AT_ONCE = 200  # messages that are read in one transaction
_LONGEST = 250  # characters of the columns for MSH-3, MSH-4 and MSH-10
_LINE_END = re.compile(rb"[\r\n]")


class OrderInbox:
    """Takes messages in one thread, reads them in another."""

    def __init__(self, ledger: InboxLedger, spool: Spool, conventions: Conventions, default_codec: str) -> None:
        self._ledger, self._spool, self._conventions, self._codec = ledger, spool, conventions, default_codec
        self._log = log(stage="orders")

    def take(self, batch: Sequence[Received]) -> Sequence[Reply]:
        """Makes messages durable, all in one transaction; raises LedgerError or StorageFull where that cannot be done.

        A message that has come before is acknowledged again and not kept twice.
        """
        drafts = [self._draft(received) for received in batch]
        for draft, came in zip(drafts, self._ledger.add_messages(drafts), strict=True):
            self._log.info("HL7 message taken", peer=draft.address, size=draft.size, came=came)
        return [ACCEPTED] * len(batch)

    def read_waiting(self) -> int:
        """Reads what waits, oldest first; returns how many messages. What cannot be read becomes a dead letter."""
        waiting = self._ledger.unread_messages(_AT_ONCE)
        readings = [self._read(message) for message in waiting]
        for job in self._ledger.settle_messages(readings) if readings else ():
            self._log.error("an application refuses what was delivered", job_id=job)
        for item in readings:
            self._log.info("HL7 message read", message_id=item.message_id, kind=item.kind, came_to=item.event.value)
        return len(readings)

    def _draft(self, received: Received) -> InboundDraft:
        head, raw = received.head, received.raw
        identity = digest("inbound", head.sending_application, head.sending_facility, head.control_id)
        large = len(raw) > _IN_ROW
        content = Sha256(hashlib.sha256(_without_head(raw)).hexdigest())
        return InboundDraft(
            identity=identity,
            sha256=content,
            sender=f"{head.sending_application}|{head.sending_facility}"[:_LONGEST],
            control_id=head.control_id[:_LONGEST],
            address=received.peer[:64],
            size=len(raw),
            raw=None if large else raw,
            file=self._spool.put(f"inbound {identity} {content}", [raw]) if large else "",
        )

    def _read(self, message: Inbound) -> Reading:
        try:
            raw = message.raw if message.raw is not None else self._spool.path(message.file).read_bytes()
            found = read(decode(raw, read_head(raw), self._codec), message.received_at, self._conventions)
        except (Unreadable, MessageUnreadable, NotFound) as error:
            reason = getattr(error, "message", str(error))
            return Reading(message_id=message.id, event=InboundEvent.NOT_UNDERSTOOD, reason=reason)
        except OSError as error:
            raise NotFound(f"the spool cannot be read: {error.strerror}") from error
        # A defect of ours must not stand in the way of the messages behind this one.
        except Exception as error:  # noqa: BLE001
            self._log.exception("HL7 message cannot be read", message_id=message.id, error=type(error).__name__)
            reason = f"internal error: {type(error).__name__}"
            return Reading(message_id=message.id, event=InboundEvent.NOT_UNDERSTOOD, reason=reason)
        event = InboundEvent.UNDERSTOOD if found.facts or found.answers else InboundEvent.OF_NO_USE
        return Reading(
            message_id=message.id,
            event=event,
            kind=found.kind,
            reason=found.nothing,
            facts=found.facts,
            answers=found.answers,
        )


def _without_head(raw: bytes) -> bytes:
    """A message without its first segment, whose time some senders change when they repeat themselves."""
    parts = _LINE_END.split(raw.lstrip(b"\r\n "), maxsplit=1)
    return parts[1] if len(parts) > 1 else parts[0]
