"""Associations that we ask for."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydicom.uid import SegmentationStorage
from pynetdicom import build_context, evt

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
