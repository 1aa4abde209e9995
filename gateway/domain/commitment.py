"""Storage commitment that others ask of us (PS3.4 annex J): what they name, and what we answer."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.ids import AETitle


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An instance that a peer wants to be sure of."""

    sop_class_uid: str  # Referenced SOP Class UID (0008,1150)
    sop_instance_uid: str  # Referenced SOP Instance UID (0008,1155)


@dataclass(frozen=True, kw_only=True)
class CommitmentRequest:
    """A request as the ledger keeps it until its report has been taken."""

    transaction_uid: str  # (0008,1195)
    calling_ae: AETitle  # who asks
    address: str  # from where
    references: tuple[Reference, ...]
    requested_at: float  # seconds since the epoch
    attempts: int = 0  # to report


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the ledger knows of an instance that somebody asks about."""

    sop_class_uid: str
    file: str  # spool key
    sha256: str  # of the dataset in it
    conflict: bool  # the peer that asks has sent other content under this UID, which is not kept as the instance
