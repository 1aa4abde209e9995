"""The Storage Commitment Push Model at our node (PS3.4 annex J): reports that come to us, and requests that are made of us."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset

from gateway.receive.receiver import Sender
from gateway.receive.service import Command, DimseRequest, DimseResponse, DimseService

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known
_UNRECOGNIZED_OPERATION = 0x0211

TakeReport = Callable[[int | None, Dataset | None], int]
"""Acts on Event Type ID and Event Information, durably, and says the status to answer with."""


class StorageCommitmentReports:
    """A `DimseService`: N-EVENT-REPORT of the Storage Commitment Push Model, with us as SCU. Requests are not taken."""

    sop_classes = (PUSH_MODEL,)

    def __init__(self, take: TakeReport) -> None:
        self._take = take

    def answer(self, request: DimseRequest, sender: Sender) -> DimseResponse:
        """Success once the report is acted on and in the ledger; raises LedgerError, and then the peer may say it again."""
        if request.command is not Command.N_EVENT_REPORT:
            return DimseResponse(status=_UNRECOGNIZED_OPERATION, comment="only storage commitment reports are taken")
        return DimseResponse(status=self._take(request.type_id, request.dataset))


class StorageCommitmentPushModel:
    """A `DimseService` in both roles: reports to us as SCU on an association of the peer's own, the rest to us as SCP."""

    sop_classes = (PUSH_MODEL,)

    def __init__(self, reports: DimseService, requests: DimseService) -> None:
        self._reports, self._requests = reports, requests

    def answer(self, request: DimseRequest, sender: Sender) -> DimseResponse:
        """As the service of the role answers."""
        is_report = request.command is Command.N_EVENT_REPORT
        return (self._reports if is_report else self._requests).answer(request, sender)
