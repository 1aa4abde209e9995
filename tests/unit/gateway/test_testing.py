"""The shipped doubles do what they say."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.domain.job import Receipt, Verdict
from gateway.hl7.framing import frame
from gateway.testing import FakeEhr, RecordingPacs
from tests.support.objects import write_object


def message(named: str) -> bytes:
    return f"MSH|^~\\&|A||B||1||ORU^R01|{named}|P|2.5.1\r".encode()


def test_pacs_keeps_the_first_copy(tmp_path: Path) -> None:
    """Refusals in order, then success; an instance sent again is not replaced."""
    one = write_object(tmp_path, "one")
    first = one.path.read_bytes()
    pacs = RecordingPacs([Receipt(verdict=Verdict.RETRY, answer="0xA700")])
    assert pacs.store([one])[one.sop_instance_uid].verdict is Verdict.RETRY
    assert pacs.objects == {}
    pacs.store([one])
    one.path.write_bytes(b"other")
    pacs.store([one])
    assert pacs.objects == {one.sop_instance_uid: first}
    assert pacs.sent == [one.sop_instance_uid] * 3


def test_ehr_counts_messages_not_tries() -> None:
    """The same MSH-10 twice is one message; waiting ends when enough have come."""
    seen: list[bytes] = []
    with FakeEhr(on_message=seen.append) as ehr, socket.create_connection(("127.0.0.1", ehr.port), 5) as line:
        line.sendall(frame(message("A")) + frame(message("A")))
        assert not ehr.wait_for(2, timeout=0.05)
        line.sendall(frame(message("B")))
        assert ehr.wait_for(2)
        assert ehr.control_ids == {"A", "B"}
        assert ehr.messages == seen == [message("A"), message("A"), message("B")]


def test_ehr_frees_its_port() -> None:
    """After the block nobody answers, and the same port can be taken again."""
    with FakeEhr() as ehr:
        port = ehr.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    with FakeEhr(port=port) as again:
        assert again.port == port
    with pytest.raises(RuntimeError):
        _ = again.port
