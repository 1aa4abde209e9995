"""What is agreed with pynetdicom's and DCMTK's kind of peer, and services other than C-STORE over our own wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
)
from pynetdicom.sop_class import ModalityPerformedProcedureStep, StorageCommitmentPushModel

from gateway.domain.errors import NotFound
from gateway.receive.receiver import Sender
from gateway.receive.service import Command, DimsePeer, DimseRequest, DimseResponse
from gateway.receive.settings import DicomSettings
from tests.support.node import EXPLICIT, Site, associate, send
from tests.support.received import SERIES, dataset

COMMITMENT, WELL_KNOWN = str(StorageCommitmentPushModel), "1.2.840.10008.1.20.1.1"


class Commitment:
    """Answers an N-ACTION and then reports an event with the same Transaction UID; an N-CREATE and N-SET are echoed."""

    sop_classes = (COMMITMENT, str(ModalityPerformedProcedureStep))

    def __init__(self) -> None:
        self.asked: list[DimseRequest] = []
        self.senders: list[Sender] = []
        self.answered: list[int | None] = []
        self.reported = threading.Event()

    def answer(self, request: DimseRequest, sender: Sender) -> DimseResponse:
        self.asked.append(request)
        self.senders.append(sender)
        if request.command is Command.N_ACTION:
            return DimseResponse(afterwards=lambda peer: self._report(peer, request))
        if request.command is Command.N_CREATE:
            return DimseResponse(sop_instance_uid="1.2.3.4", dataset=request.dataset)
        raise NotFound("no such step")

    def _report(self, peer: DimsePeer, request: DimseRequest) -> None:
        assert request.dataset is not None
        self.answered.append(peer.report_event(COMMITMENT, WELL_KNOWN, 1, request.dataset))
        self.reported.set()


@pytest.fixture
def service() -> Commitment:
    return Commitment()


@pytest.fixture
def site(tmp_path: Path, service: Commitment) -> Iterator[Site]:
    made = Site(tmp_path, DicomSettings(port=0), services=[service])
    yield made
    made.close()


def transaction() -> Dataset:
    made, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, f"{SERIES}.1"
    made.TransactionUID, made.ReferencedSOPSequence = "1.2.3.77", [item]
    return made


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_an_action_and_its_event(site: Site, service: Commitment, syntax: str) -> None:
    """The response comes first, then the report over the same association, as often as it is asked."""
    heard: list[tuple[int, str]] = []

    def on_report(event: evt.Event) -> tuple[int, None]:
        heard.append((event.event_type, str(event.event_information.TransactionUID)))
        return 0x0000, None

    entity = AE("TESTER")
    contexts = [build_context(StorageCommitmentPushModel, syntax), *EXPLICIT]
    association = entity.associate(
        "127.0.0.1", site.port, contexts=contexts, ae_title="HILUM", evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]
    )
    for _ in range(2):
        status, _ = association.send_n_action(transaction(), 1, StorageCommitmentPushModel, WELL_KNOWN)
        assert status.Status == 0x0000
        assert service.reported.wait(10)
        service.reported.clear()
    association.release()
    assert heard == [(1, "1.2.3.77")] * 2
    assert service.answered == [0x0000, 0x0000]
    [first, _] = service.asked
    assert (first.command, first.sop_class_uid, first.sop_instance_uid) == (Command.N_ACTION, COMMITMENT, WELL_KNOWN)
    assert first.type_id == 1
    assert first.dataset is not None
    assert first.dataset.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{SERIES}.1"
    assert service.senders[0].calling_ae == "TESTER"


def test_a_peer_that_leaves_before_the_event(site: Site, service: Commitment) -> None:
    """It has released or gone: the service hears that, and may say it on another association."""
    association = associate(site, [build_context(StorageCommitmentPushModel)])
    association.send_n_action(transaction(), 1, StorageCommitmentPushModel, WELL_KNOWN)
    association.abort()
    assert service.reported.wait(10)
    assert service.answered in ([None], [0x0110])  # pynetdicom answers by itself where it is quick enough


def test_create_and_set(site: Site, service: Commitment) -> None:
    """A dataset comes back, an instance is named by us, and an error is its status."""
    association = associate(site, [build_context(ModalityPerformedProcedureStep)])
    made = Dataset()
    made.PerformedProcedureStepStatus = "IN PROGRESS"
    status, back = association.send_n_create(made, ModalityPerformedProcedureStep, None)
    assert status.Status == 0x0000
    assert back.PerformedProcedureStepStatus == "IN PROGRESS"
    status, _ = association.send_n_set(made, ModalityPerformedProcedureStep, "1.2.3.9")
    assert (status.Status, status.ErrorComment) == (0x0213, "no such step"), "N-services know no 0xA700 (PS3.7 annex C)"
    association.release()
    assert [request.command for request in service.asked] == [Command.N_CREATE, Command.N_SET]


def test_statuses_of_n_services(site: Site) -> None:
    """What names no UID is refused as PS3.7 annex C has it, and the association goes on."""
    association = associate(site, [*EXPLICIT, build_context(StorageCommitmentPushModel)])
    status, _ = association.send_n_action(transaction(), 1, StorageCommitmentPushModel, "1.2.x")
    assert status.Status == 0x0117
    assert send(association, dataset()).Status == 0x0000
    association.release()


def test_roles_and_windows(site: Site) -> None:
    """A peer may be the user, never only a provider; one operation at a time; extended negotiation is not ours."""
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 5, 3
    extended, common = SOPClassExtendedNegotiation(), SOPClassCommonExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = MRImageStorage, b"\2\0\0\0\0\0"
    common.sop_class_uid, common.service_class_uid = MRImageStorage, "1.2.840.10008.4.2"
    ct = "1.2.840.10008.5.1.4.1.1.2"
    items = [
        window,
        extended,
        common,
        build_role(MRImageStorage, scu_role=True, scp_role=True),
        build_role(ct, scp_role=True),
    ]
    contexts = [build_context(MRImageStorage, [JPEG2000Lossless, ExplicitVRLittleEndian]), build_context(ct)]
    association = associate(site, contexts, ext_neg=items)
    assert association.is_established
    acceptor = association.acceptor
    assert acceptor.asynchronous_operations == (1, 1)
    assert acceptor.sop_class_extended == {}
    assert {str(uid): (role.scu_role, role.scp_role) for uid, role in acceptor.role_selection.items()} == {
        str(MRImageStorage): (True, False)
    }
    [accepted] = association.accepted_contexts
    assert (accepted.abstract_syntax, accepted.transfer_syntax) == (MRImageStorage, [JPEG2000Lossless])
    assert [str(context.abstract_syntax) for context in association.rejected_contexts] == [ct]
    association.release()


def test_a_service_takes_no_compressed_dataset(site: Site) -> None:
    """Verification in JPEG 2000 is a transfer syntax that is not supported (result 4)."""
    association = associate(site, [build_context("1.2.840.10008.1.1", JPEG2000Lossless), *EXPLICIT])
    assert [context.result for context in association.rejected_contexts] == [4]
    assert send(association, dataset()).Status == 0x0000
    association.release()


def test_node_needs_no_services(tmp_path: Path) -> None:
    """Without services there is C-ECHO, and commitment is not offered."""
    plain = Site(tmp_path, DicomSettings(port=0))
    association = associate(plain, [build_context("1.2.840.10008.1.1"), build_context(StorageCommitmentPushModel)])
    assert [str(context.abstract_syntax) for context in association.accepted_contexts] == ["1.2.840.10008.1.1"]
    assert association.send_c_echo().Status == 0x0000
    association.release()
    plain.close()
