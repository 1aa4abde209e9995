"""Modality Performed Procedure Step SCP (PS3.4 F.7): the modality says which images there are, and when it has done."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from pydicom.dataset import Dataset

from gateway.domain.errors import InvalidIdentifier
from gateway.domain.evidence import PerformedStep
from gateway.domain.ids import InstanceUID, StudyUID, Uid
from gateway.domain.ports import StepLedger
from gateway.observe.logs import log
from gateway.receive.receiver import Sender
from gateway.receive.service import Command, DimseRequest, DimseResponse

PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
_INVALID_VALUE, _PROCESSING_FAILURE, _DUPLICATE, _NO_SUCH_INSTANCE = 0x0106, 0x0110, 0x0111, 0x0112  # PS3.7 annex C
_MISSING_ATTRIBUTE, _UNRECOGNIZED_OPERATION = 0x0120, 0x0211
_IN_PROGRESS, _FINAL = "IN PROGRESS", ("COMPLETED", "DISCONTINUED")

_U = TypeVar("_U", bound=Uid)


class PerformedProcedureSteps:
    """A `DimseService`: N-CREATE and N-SET. What a step lists becomes evidence about its studies."""

    sop_classes = (PERFORMED_PROCEDURE_STEP,)

    def __init__(self, ledger: StepLedger) -> None:
        self._ledger = ledger

    def answer(self, request: DimseRequest, sender: Sender) -> DimseResponse:
        """Success once it is in the ledger; raises LedgerError."""
        said = request.dataset or Dataset()
        if request.command is Command.N_CREATE:
            return self._create(request.sop_instance_uid or f"2.25.{uuid.uuid4().int}", said, sender)
        if request.command is Command.N_SET:
            return self._set(request.sop_instance_uid, said)
        return DimseResponse(status=_UNRECOGNIZED_OPERATION, comment="only N-CREATE and N-SET are taken")

    def _create(self, uid: str, said: Dataset, sender: Sender) -> DimseResponse:
        if status_of(said) != _IN_PROGRESS:
            return DimseResponse(status=_INVALID_VALUE, comment="a step begins as IN PROGRESS")
        studies = studies_of(said)
        if not studies:
            return DimseResponse(status=_MISSING_ATTRIBUTE, comment="no Study Instance UID of a scheduled step")
        step = PerformedStep(step_uid=uid, source=sender.calling_ae, status=_IN_PROGRESS, instances=images_of(said))
        if not self._ledger.add_step(step, studies):
            return DimseResponse(status=_DUPLICATE, comment="this step exists already")
        log(stage="receive").info("performed step", step=uid, status=_IN_PROGRESS, calling_ae=sender.calling_ae)
        return DimseResponse(sop_instance_uid=uid)

    def _set(self, uid: str, said: Dataset) -> DimseResponse:
        before = self._ledger.step(uid)
        if before is None:
            return DimseResponse(status=_NO_SUCH_INSTANCE, comment="no such step")
        status = status_of(said) or before.status
        if status not in (_IN_PROGRESS, *_FINAL):
            return DimseResponse(status=_INVALID_VALUE, comment="no such Performed Procedure Step Status")
        images = images_of(said) if "PerformedSeriesSequence" in said else before.instances
        after = replace(before, status=status, instances=images)
        if before.status in _FINAL or not self._ledger.change_step(before, after):
            return DimseResponse(status=_PROCESSING_FAILURE, comment="the step may no longer be updated")
        log(stage="receive").info("performed step", step=uid, status=status, images=len(images))
        return DimseResponse()


def status_of(step: Dataset) -> str:
    """Performed Procedure Step Status (0040,0252); empty where it is not there."""
    return _text(step, "PerformedProcedureStepStatus")


def studies_of(step: Dataset) -> list[StudyUID]:
    """The studies that a step says it belongs to, each once."""
    items = _items(step, "ScheduledStepAttributesSequence")
    return list(_uids(StudyUID, (_text(item, "StudyInstanceUID") for item in items)))


def images_of(step: Dataset) -> tuple[str, ...]:
    """SOP Instance UIDs of the images that a step lists; presentation states and the like are no input of a model."""
    images = (
        _text(image, "ReferencedSOPInstanceUID")
        for series in _items(step, "PerformedSeriesSequence")
        for image in _items(series, "ReferencedImageSequence")
    )
    return tuple(_uids(InstanceUID, images))


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    found = dataset.get(keyword)
    yield from (item for item in found or () if isinstance(item, Dataset))


def _uids(kind: Callable[[str], _U], texts: Iterator[str]) -> Iterator[_U]:
    """Each once, without those that are none."""
    for text in dict.fromkeys(texts):
        try:
            yield kind(text)
        except InvalidIdentifier:
            continue
