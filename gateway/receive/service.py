"""DIMSE services other than C-STORE: what each is asked, what it answers, and what it says afterwards by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from pydicom.dataset import Dataset

from gateway.receive.receiver import SUCCESS, Sender

VERIFICATION = "1.2.840.10008.1.1"


class Command(IntEnum):
    """Command Field (0000,0100) of the requests that a service may be asked (PS3.7 annex E.1)."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150


@dataclass(frozen=True, kw_only=True)
class DimseRequest:
    """One request of a peer."""

    command: Command
    sop_class_uid: str  # Affected or Requested SOP Class UID, checked
    sop_instance_uid: str = ""  # Affected or Requested SOP Instance UID, checked; an N-CREATE may leave it to us
    type_id: int | None = None  # Action Type ID (0000,1008) or Event Type ID (0000,1002)
    dataset: Dataset | None = None  # Action Information, Attribute List, Modification List ...


class DimsePeer(Protocol):
    """The association a request came over, after its response."""

    def report_event(self, sop_class_uid: str, sop_instance_uid: str, type_id: int, dataset: Dataset) -> int | None:
        """Sends an N-EVENT-REPORT-RQ and returns the status of its response.

        None where the peer ended the association before it answered: say it on another association then.
        Requests that come meanwhile are answered. Only for the thread that calls `DimseResponse.afterwards`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DimseResponse:
    """What a service answers."""

    status: int = SUCCESS  # PS3.7 annex C
    comment: str = ""  # Error Comment (0000,0902), 64 characters at most
    sop_instance_uid: str = ""  # of what an N-CREATE made, where the request named none
    dataset: Dataset | None = None  # Attribute List, Action Reply ...
    afterwards: Callable[[DimsePeer], None] | None = None  # called in the association's thread once the response is out


class DimseService(Protocol):
    """Answers requests for some SOP classes. One object serves every association, each in its own thread."""

    @property
    def sop_classes(self) -> Collection[str]:
        """SOP Class UIDs that a peer may propose for it; no storage classes."""
        ...

    def answer(self, request: DimseRequest, sender: Sender) -> DimseResponse:
        """Answers one request; a HilumError becomes its status and comment."""
        ...


class Verification:
    """C-ECHO (PS3.4 annex A)."""

    sop_classes = (VERIFICATION,)

    def answer(self, request: DimseRequest, sender: Sender) -> DimseResponse:
        """Success: that an answer comes is all that is asked."""
        return DimseResponse()
