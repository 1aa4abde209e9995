"""The ledger's part for application acknowledgements that come later than at once: each finds its message by MSA-2."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from gateway.domain.ids import JobId
from gateway.domain.inbound import ApplicationAnswer
from gateway.domain.job import Payload
from gateway.domain.states import DeliveryState
from gateway.store import progress, schema

_DELIVERIES = schema.deliveries
_OPEN = (DeliveryState.WAITING.value, DeliveryState.SENDING.value, DeliveryState.STORED.value)


def hear_application(connection: Connection, answer: ApplicationAnswer, now: float) -> list[JobId]:
    """Keeps what is said of a message of ours that is under way: it may come before CA has been written down. What is said
    of one that has ended changes nothing; where it is bad news, the study's story tells it, and its job is returned."""
    mine = _DELIVERIES.c.key == answer.control_id, _DELIVERIES.c.payload == Payload.MESSAGE.value
    refused = []
    for row in connection.execute(select(_DELIVERIES).where(*mine)).all():
        if row.state in _OPEN:
            due = {"next_try": now} if row.state == DeliveryState.STORED.value else {}
            _write(connection, row, [answer.code, answer.text], **due)
        elif answer.code != "AA":
            progress.remark(connection, row, "application refuses", answer.code, now)
            refused.append(JobId(row.job_id))
    return refused


def forget_application(connection: Connection, row: Row[Any]) -> None:
    """A message that is sent again has not been answered yet."""
    if row.about and row.about.get("application"):
        _write(connection, row, None)


def _write(connection: Connection, row: Row[Any], said: list[str] | None, **values: Any) -> None:
    about = {**(row.about or {}), "application": said}
    connection.execute(update(_DELIVERIES).where(_DELIVERIES.c.id == row.id).values(about=about, **values))
