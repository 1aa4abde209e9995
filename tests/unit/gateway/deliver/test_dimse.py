"""Associations that we ask for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.uid import SegmentationStorage
from pynetdicom import build_context, evt
from pynetdicom.sop_class import Verification

from gateway.deliver.dimse import Dialer, NoAssociation
from gateway.deliver.settings import DicomDestination
from gateway.domain.job import Verdict
from tests.support.scp import storage_peer


def test_a_rejection_is_heard_however_late_we_look() -> None:
    """The peer has rejected and the connection is over before the thread that called goes on."""

    def sleep_until_it_is_over(event: Any) -> None:
        end = time.monotonic() + 10
        while event.assoc.dul.peek_next_pdu() is None or event.assoc.dul.socket._is_connected:
            assert time.monotonic() < end, "no answer came"
            time.sleep(0.005)  # between two looks; the condition ends the wait

    with storage_peer(titles=["SOMEBODY"]) as peer:
        destination = DicomDestination(kind="dicom", ae_title="PEER", host="127.0.0.1", port=peer.port)
        late = [(evt.EVT_REQUESTED, sleep_until_it_is_over)]
        with (
            pytest.raises(NoAssociation, match="association rejected: Rejected Permanent") as refusal,
            Dialer(destination, "HILUM").association([build_context(SegmentationStorage)], handlers=late),
        ):
            pass
    assert refusal.value.receipt.verdict is Verdict.REJECTED


class _Gate(threading.Event):
    """Where pynetdicom's thread waits while ours asks; a thread may be halted just past it."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.arrivals, self.halt = 0, False
        self.halted, self.go_on = threading.Event(), threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.arrivals += 1
        passed = super().wait(timeout)
        if self.halt:
            self.halt = False
            self.halted.set()
            self.go_on.wait(10)
        return passed


def test_an_answer_is_ours_however_the_threads_take_turns() -> None:
    """pynetdicom's thread is halted when it is past the gate and does not say so yet, and goes on when the answer is there."""
    timeouts = {"dimse": "2s"}
    with storage_peer() as peer:
        destination = DicomDestination.model_validate(
            {"kind": "dicom", "ae_title": "PEER", "host": "127.0.0.1", "port": peer.port, "timeouts": timeouts}
        )
        with Dialer(destination, "HILUM").association([build_context(Verification)]) as association:
            gate, send = _Gate(), association.dimse.send_msg
            old, association._reactor_checkpoint = association._reactor_checkpoint, gate
            old.set()

            def send_and_let_it_go_on(*message: Any) -> None:
                send(*message)
                _until(lambda: not association.dimse.msg_queue.empty())
                before = gate.arrivals
                gate.go_on.set()
                _until(lambda: gate.arrivals > before)

            association.dimse.send_msg = send_and_let_it_go_on  # type: ignore[method-assign]
            gate.halt = True
            assert gate.halted.wait(10)
            answer = association.send_c_echo()
            assert answer.get("Status") == 0


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)  # between two looks; the condition ends the wait
