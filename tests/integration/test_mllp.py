"""Messages over real sockets: which answer counts, and what becomes of the connection."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.domain.errors import ConfigurationError, DestinationUnreachable
from gateway.domain.job import Verdict
from gateway.hl7.framing import frame
from gateway.report.mllp import MllpEhr
from gateway.report.settings import Hl7Destination
from gateway.testing import Answer, FakeEhr
from tests.support.certificates import make_certificate
from tests.support.mllp import Kept, listening
from tests.support.orthanc import free_port
from tests.support.scp import blackhole


def message(named: str = "C1", patient: str = "P1^^^H||Doe^Jane") -> bytes:
    return f"MSH|^~\\&|HILUM||EHR||20240101||ORU^R01^ORU_R01|{named}|P|2.5.1\rPID|1||{patient}\r".encode()


def ehr(port: int, timeout: str = "300ms", **more: object) -> MllpEhr:
    return MllpEhr(
        Hl7Destination.model_validate({"kind": "hl7", "host": "127.0.0.1", "port": port, "timeout": timeout, **more})
    )


def acknowledgement(code: str, named: str, text: str = "") -> bytes:
    return f"MSH|^~\\&|EHR||HILUM||20240101||ACK|9|P|2.5.1\rMSA|{code}|{named}|{text}\r".encode()


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[int]:
    """A server that answers the first bytes on its connection with these pieces, whatever was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(BrokenPipeError, ConnectionResetError):
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                    ended.wait(pause)
                ended.wait(5)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        ended.set()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("AA", Verdict.ACCEPTED),
        ("CA", Verdict.ACCEPTED),
        ("AE", Verdict.RETRY),
        ("CE", Verdict.RETRY),
        ("AR", Verdict.REJECTED),
        ("CR", Verdict.REJECTED),
        ("none", Verdict.RETRY),
        ("garbage", Verdict.RETRY),
        ("wrong id", Verdict.RETRY),
        ("close", Verdict.RETRY),
        ("twice", Verdict.ACCEPTED),
        ("AA, close", Verdict.ACCEPTED),
    ],
)
def test_each_answer_has_its_verdict(answer: Answer, verdict: Verdict) -> None:
    """And whatever it was, the next message is delivered."""
    with FakeEhr([answer]) as peer:
        client = ehr(peer.port)
        receipt = client.send(message())
        assert receipt.verdict is verdict
        assert client.send(message("C2")).verdict is Verdict.ACCEPTED
    if len(answer) == 2:
        assert receipt.answer == answer
    assert peer.messages == [message(), message("C2")]


def test_connection_is_kept_for_the_next_message() -> None:
    """Ten messages, one connection."""
    with FakeEhr() as peer:
        client = ehr(peer.port)
        for number in range(10):
            assert client.send(message(f"C{number}")).verdict is Verdict.ACCEPTED
    assert peer.connections == 1
    assert len(peer.control_ids) == 10


def test_late_acknowledgement_is_not_taken_for_the_next_message() -> None:
    """The answer to the first message comes before that to the second."""
    with FakeEhr(["late"]) as peer:
        client = ehr(peer.port)
        assert client.send(message("C1")).verdict is Verdict.RETRY
        assert client.send(message("C2")).verdict is Verdict.RETRY
        assert client.send(message("C2")).verdict is Verdict.ACCEPTED
        assert client.send(message("C1")).verdict is Verdict.ACCEPTED
    assert peer.control_ids == {"C1", "C2"}
    assert peer.connections == 3


def test_second_acknowledgement_does_not_reach_the_next_message() -> None:
    """What comes unasked between two messages closes the connection."""
    with FakeEhr(["twice", "AR"]) as peer:
        client = ehr(peer.port)
        assert client.send(message("C1")).verdict is Verdict.ACCEPTED
        assert client.send(message("C2")).verdict is Verdict.REJECTED
    assert peer.connections == 2


def test_same_bytes_again_after_silence() -> None:
    """A retry is the same message; a receiver that knows MSH-10 counts it once.

    A kept connection that the receiver closes instead of answering is replaced at once.
    """
    with FakeEhr(["none", "AE", "close"]) as peer:
        client = ehr(peer.port)
        verdicts = [client.send(message()).verdict for _ in range(3)]
    assert verdicts == [Verdict.RETRY, Verdict.RETRY, Verdict.ACCEPTED]
    assert len(peer.messages) == 4
    assert len(set(peer.messages)) == 1
    assert peer.control_ids == {"C1"}


def test_acknowledgement_in_pieces_and_after_noise() -> None:
    """Cut anywhere, without the last CR, with noise before it."""
    whole = b"\r\nnoise" + frame(acknowledgement("AA", "C1"))[:-1]
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    with answering(*pieces) as port:
        assert ehr(port, "3s").send(message()).verdict is Verdict.ACCEPTED


def test_drops_of_an_answer_do_not_prolong_the_wait() -> None:
    """A byte every 50 ms is no acknowledgement within 300 ms."""
    with answering(*([b"x"] * 100), pause=0.05) as port:
        started = time.monotonic()
        assert ehr(port).send(message()).verdict is Verdict.RETRY
    assert time.monotonic() - started < 3


def test_endless_answer_is_cut_off() -> None:
    """Two megabytes without an end are no acknowledgement."""
    with answering(b"\x0b" + b"x" * (2 << 20)) as port:
        receipt = ehr(port, "10s").send(message())
    assert receipt.verdict is Verdict.RETRY
    assert "large" in receipt.answer


def test_reason_is_told_without_the_patient() -> None:
    """MSA-3 in 80 printable characters; what it quotes of PID is hidden."""
    text = "patient DOE, Jane (PAT-4711) \x07unknown " + "x" * 100
    with answering(frame(acknowledgement("AE", "C1", text))) as port:
        receipt = ehr(port).send(message(patient="PAT-4711^^^H||Doe^Jane"))
    assert receipt.answer.startswith("AE: patient …, … (…) unknown xxx")
    assert len(receipt.answer) <= 84
    assert receipt.verdict is Verdict.RETRY


@pytest.mark.parametrize(
    "answer", [b"", b"MSA|AA|C1", b"MSH|^~\\&|\rMSA|AA", b"MSH", b"\xff\xfe", b"MSH|^~\\&\rMSA|XX|C1"]
)
def test_what_is_no_acknowledgement_is_none(answer: bytes) -> None:
    """Without MSH, without MSA-2, with an unknown code."""
    with answering(frame(answer)) as port:
        assert ehr(port).send(message()).verdict is Verdict.RETRY


def test_nobody_there_and_nobody_answering() -> None:
    """A refused connection and a silent port end in time, and both are tried again."""
    assert ehr(free_port()).send(message()).verdict is Verdict.RETRY
    with blackhole() as port:
        started = time.monotonic()
        receipt = ehr(port).send(message())
    assert receipt.verdict is Verdict.RETRY
    assert "no acknowledgement" in receipt.answer
    assert time.monotonic() - started < 3


def test_message_that_would_break_its_frame_is_not_sent() -> None:
    """A framing byte inside a message is our own mistake."""
    with FakeEhr() as peer:
        assert ehr(peer.port).send(b"MSH\x1c").verdict is Verdict.REJECTED
    assert peer.messages == []


def test_echo_connects() -> None:
    """It says where, or why not."""
    with FakeEhr() as peer:
        assert str(peer.port) in ehr(peer.port).echo()
    with pytest.raises(DestinationUnreachable, match="refused"):
        ehr(free_port()).echo()


def test_tls_needs_the_right_certificate(tmp_path: Path) -> None:
    """With the peer's authority the message arrives encrypted; with another it does not leave."""
    good, other = make_certificate(tmp_path), make_certificate(tmp_path, "127.0.0.2")
    with FakeEhr() as peer, tls_front(good.server_context(), peer.port) as port:
        receipt = ehr(port, "3s", tls={"ca_file": str(good.certificate)}).send(message())
        refused = ehr(port, "3s", tls={"ca_file": str(other.certificate)}).send(message())
    assert receipt.verdict is Verdict.ACCEPTED
    assert refused.verdict is Verdict.RETRY
    assert "certificate" in refused.answer
    assert peer.messages == [message()]


def test_a_receiver_that_wants_our_certificate_gets_it(tmp_path: Path) -> None:
    """Mutual TLS on the way out; without a certificate, or with a stranger's, the message does not leave."""
    server, ours, other = (make_certificate(tmp_path, f"127.0.0.{number}") for number in (1, 2, 3))
    files = {"cert_file": str(server.certificate), "key_file": str(server.key), "client_ca_file": str(ours.certificate)}
    kept, ca = Kept(), {"ca_file": str(server.certificate)}
    with listening(kept, tls=files) as peer:
        shown = [{}, *({"cert_file": str(one.certificate), "key_file": str(one.key)} for one in (other, ours))]
        verdicts = [ehr(peer.port, "3s", tls=ca | files).send(message()).verdict for files in shown]
    assert verdicts == [Verdict.RETRY, Verdict.RETRY, Verdict.ACCEPTED]
    assert [one.raw for one in kept.messages] == [message()]


def test_tls_files_that_cannot_be_used_are_a_configuration_error(tmp_path: Path) -> None:
    """Said at the start, with the name of the file."""
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        ehr(1, tls={"ca_file": str(tmp_path / "none.pem")})


@contextmanager
def tls_front(context: ssl.SSLContext, target: int) -> Iterator[int]:
    """Takes TLS connections and passes their content on to a plain port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                    near = context.wrap_socket(plain, server_side=True)
                except OSError:
                    if listener.fileno() < 0:
                        return
                    continue
                far = socket.create_connection(("127.0.0.1", target))
                threading.Thread(target=pump, args=(near, far), daemon=True).start()
                threading.Thread(target=pump, args=(far, near), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
