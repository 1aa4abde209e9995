"""Messages from the EHR, from arrival to what they say."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.context import Fact
from gateway.domain.ids import Sha256
from gateway.domain.states import InboundEvent


@dataclass(frozen=True, kw_only=True)
class InboundDraft:
    """A message that has just arrived, ready to be made durable."""

    identity: Sha256  # digest of sender and MSH-10: the same message again has the same
    sha256: Sha256  # of its content without MSH, which some senders change when they repeat themselves
    sender: str  # MSH-3 and MSH-4
    control_id: str  # MSH-10
    address: str  # where from
    size: int  # bytes
    raw: bytes | None  # the message, or None where
    file: str = ""  # the spool has it under this key


@dataclass(frozen=True, kw_only=True)
class Inbound:
    """A message that waits to be read."""

    id: int
    received_at: float  # seconds since the epoch
    raw: bytes | None
    file: str


@dataclass(frozen=True, kw_only=True)
class ApplicationAnswer:
    """What an application says of a message that we have sent it (MSA)."""

    control_id: str  # MSA-2: MSH-10 of ours
    code: str  # AA, AE, AR
    text: str  # MSA-3, or what ERR says


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What reading a message came to."""

    message_id: int
    event: InboundEvent
    kind: str = ""  # ORM^O01
    reason: str = ""  # why it says nothing; no patient data
    facts: tuple[Fact, ...] = ()
    answers: tuple[ApplicationAnswer, ...] = ()
