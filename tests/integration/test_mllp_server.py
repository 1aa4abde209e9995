"""Our MLLP server, spoken to by clients that others wrote and by sockets that say whatever a test wants."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import hl7
import pytest
from hl7.client import MLLPClient
from hl7.mllp import open_hl7_connection
from hl7apy.parser import parse_message

from gateway.domain.errors import ServiceUnavailable, StorageFull
from gateway.hl7.answer import Decision, Reply
from gateway.hl7.charset import CODECS
from gateway.hl7.framing import frame
from gateway.hl7.server import MllpServer, Received
from gateway.hl7.settings import MllpListener
from tests.support.certificates import make_certificate
from tests.support.mllp import Kept, converse, framed, listening, message, msa, read_answers, tls_tunnel
from tests.support.node import wait

NAMES = {
    "UNICODE UTF-8": ("utf-8", "葉^大雄~山田^太郎~Müller^Jürgen"),
    "GB 18030-2000": ("gb18030", "葉^大雄~張^㐂~叶^问"),
    "GB18030": ("gb18030", "葉^大雄"),
    "BIG-5": ("cp950", "許^功蓋~葉^大雄"),
    "SHIFT_JIS": ("cp932", "表^十兵衛~山田^ソノ"),
    "~ISO IR87": ("iso2022_jp_ext", "山田^太郎~Yamada^Tarou"),
    "KS X 1001": ("cp949", "홍^길동"),
    "8859/1": ("iso8859-1", "Müller^Jürgen"),
    "8859/2": ("iso8859-2", "Łukasz^Dvořák"),
    "8859/3": ("iso8859-3", "Ĝis^Ĉu"),
    "8859/4": ("iso8859-4", "Ķirsis^Ģirts"),
    "8859/5": ("iso8859-5", "Люкceмбypг^Иван"),
    "8859/6": ("iso8859-6", "قباني^لنزار"),
    "8859/7": ("iso8859-7", "Διονυσιος^Ανδρεας"),
    "8859/8": ("iso8859-8", "שרון^דבורה"),
    "8859/9": ("iso8859-9", "Çavuşoğlu^İpek"),
    "8859/15": ("iso8859-15", "Œuvre^Zoë"),
    "ASCII": ("ascii", "Doe^Jane"),
    "": ("ascii", "Doe^Jane"),
}


@pytest.mark.parametrize("charset", NAMES)
def test_every_character_set_is_decoded_before_it_is_split(charset: str) -> None:
    """By MSH-18; the names of the sending application are written in it as well, before MSH-18 is reached."""
    codec, name = NAMES[charset]
    text = message(patient=f"P1||{name}", charset=charset).replace("|ADT|MAIN|", f"|{name.split('^')[0]}|MAIN|")
    kept = Kept()
    with listening(kept) as server:
        (answer,) = converse(server.port, framed(text, codec))
    assert msa(answer)[:2] == ["AA", "C1"]
    (received,) = kept.messages
    assert received.raw == text.encode(codec)
    assert received.text() == text
    assert received.head.sending_application == name.split("^")[0]
    assert f"|{name.split('^')[0]}|MAIN|" in answer.decode(codec)


def test_every_character_set_of_the_table_is_tried() -> None:
    """Of table 0211 and Shift-JIS; those of ISO 2022 come together in one message."""
    assert set(CODECS) - set(NAMES) == {"ISO IR14", "ISO IR87", "ISO IR159", "UNICODE"}


def in_every_character_set() -> dict[str, tuple[str, str]]:
    """MSH-10 -> a message, and the codec that its MSH-18 names."""
    return {
        f"C{number}": (message(f"C{number}", patient=f"P1||{name}", charset=charset), codec)
        for number, (charset, (codec, name)) in enumerate(NAMES.items())
    }


def test_mllp_send_of_python_hl7(tmp_path: Path) -> None:
    """The command line client, with a message in every character set in one file; plain, and through a TLS front (it has no
    TLS itself)."""
    sent = in_every_character_set()
    file = tmp_path / "messages"
    file.write_bytes(b"".join(framed(*one) for one in sent.values()))
    certificate = make_certificate(tmp_path)
    files = {"cert_file": str(certificate.certificate), "key_file": str(certificate.key)}
    context = ssl.create_default_context(cafile=certificate.certificate)
    tool = Path(sys.executable).with_name("mllp_send")
    for tls in ({}, {"tls": files}):
        kept = Kept()
        with listening(kept, **tls) as server, tls_tunnel(context, server.port) as tunnel:
            port = tunnel if tls else server.port
            command = [tool, "--file", file, "--port", str(port), "127.0.0.1"]
            done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        assert [one.text() for one in kept.messages] == [text.rstrip("\r") for text, _ in sent.values()]
        assert done.stdout.count(b"MSA|AA|C") == len(sent)


@pytest.mark.parametrize("secure", [False, True])
def test_clients_of_python_hl7(secure: bool, tmp_path: Path) -> None:
    """The blocking and the asyncio one, plain and by TLS, in every character set; the acknowledgement is one that hl7apy
    finds valid."""
    certificate = make_certificate(tmp_path)
    tls = {"cert_file": str(certificate.certificate), "key_file": str(certificate.key)} if secure else None
    context = ssl.create_default_context(cafile=certificate.certificate) if secure else None
    sent, kept = in_every_character_set(), Kept()

    async def send(port: int, text: str, codec: str) -> str:
        reader, writer = await open_hl7_connection("127.0.0.1", port, ssl=context, encoding=codec)
        writer.writemessage(hl7.parse(text))
        await writer.drain()
        answer = str(await reader.readmessage())
        writer.close()
        return answer

    with listening(kept, **({"tls": tls} if tls else {})) as server:
        answers = {named: asyncio.run(asyncio.wait_for(send(server.port, *one), 20)) for named, one in sent.items()}
        with MLLPClient("127.0.0.1", server.port) as client:
            if context:
                client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
            blocking = [client.send_message(text.encode(codec)) for text, codec in sent.values()]
    assert [one.text() for one in kept.messages] == [text for text, _ in sent.values()] * 2
    assert all(f"MSA|AA|{named}".encode() in answer for named, answer in zip(sent, blocking, strict=True))
    for named, answer in answers.items():
        parsed = parse_message(answer, find_groups=False)
        parsed.validate()
        assert (parsed.msa.msa_1.value, parsed.msa.msa_2.value) == ("AA", named)
        assert parsed.msh.msh_9.value == "ACK^A08^ACK"


def test_client_without_certificate_is_refused_where_one_is_wanted(tmp_path: Path) -> None:
    """Mutual TLS."""
    certificate, other = make_certificate(tmp_path), make_certificate(tmp_path, "127.0.0.2")
    tls = {"cert_file": str(certificate.certificate), "key_file": str(certificate.key)}
    context = ssl.create_default_context(cafile=certificate.certificate)
    kept = Kept()
    with listening(kept, tls={**tls, "client_ca_file": str(other.certificate)}) as server:
        refused: list[bytes] = []
        with suppress(OSError):
            refused = converse(server.port, framed(message()), tls=context)
        assert refused == []
        context.load_cert_chain(other.certificate, other.key)
        (answer,) = converse(server.port, framed(message()), tls=context)
    assert msa(answer)[0] == "AA"
    assert len(kept.messages) == 1


def test_messages_in_pieces_and_several_in_one_read() -> None:
    """Byte by byte, then fifty at once: one answer each, in order, and the fifty are made durable together."""
    kept = Kept()
    one = framed(message("A"))
    with listening(kept) as server:
        assert [msa(answer)[1] for answer in converse(server.port, *(one[at : at + 1] for at in range(len(one))))] == [
            "A"
        ]
        many = b"".join(framed(message(f"B{number}")) for number in range(50))
        answers = converse(server.port, many, answers=50)
    assert [msa(answer)[1] for answer in answers] == [f"B{number}" for number in range(50)]
    assert len(kept.batches) < 20


def test_what_waits_while_others_are_stored_is_stored_together() -> None:
    """Group commit over connections: with the handler busy, forty senders are served by its next call."""
    kept = Kept()
    with listening(kept) as server:
        kept.gate.clear()
        ends = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(41)]
        ends[0].sendall(framed(message("FIRST")))
        assert kept.entered.wait(10)
        for number, end in enumerate(ends[1:]):
            end.sendall(framed(message(f"C{number}")))
        wait(lambda: server.waiting == 40)
        kept.gate.set()
        assert {msa(answer)[0] for end in ends for answer in read_answers(end, 1)} == {"AA"}
        for end in ends:
            end.close()
    assert [len(batch) for batch in kept.batches] == [1, 40]


@pytest.mark.parametrize(
    ("modes", "decision", "codes"),
    [
        ("|", Decision.ACCEPTED, ["AA"]),
        ("|", Decision.ERROR, ["AE"]),
        ("|", Decision.REJECTED, ["AR"]),
        ("AL|NE", Decision.ACCEPTED, ["CA"]),
        ("AL|NE", Decision.ERROR, ["CE"]),
        ("AL|NE", Decision.REJECTED, ["CR"]),
        ("AL|AL", Decision.ACCEPTED, ["CA", "AA"]),
        ("AL|ER", Decision.ACCEPTED, ["CA"]),
        ("ER|NE", Decision.REJECTED, ["CR"]),
        ("NE|AL", Decision.ACCEPTED, ["AA"]),
        ("SU|ER", Decision.REJECTED, ["AR"]),
    ],
)
def test_acknowledgement_mode_is_the_one_asked_for(modes: str, decision: Decision, codes: list[str]) -> None:
    """MSH-15 and 16; what is not wanted does not come before the answer to the next message."""
    kept = Kept(lambda one: Reply(decision if one.head.control_id == "C1" else Decision.ACCEPTED, "why"))
    with listening(kept) as server:
        data = framed(message(modes=modes)) + framed(message("C2"))
        answers = converse(server.port, data, answers=len(codes) + 1)
    assert [msa(answer)[:2] for answer in answers] == [*([code, "C1"] for code in codes), ["AA", "C2"]]


@pytest.mark.parametrize(
    ("raw", "expected", "error"),
    [
        (b"", ["AR", ""], "100"),
        (b"hello", ["AR", ""], "100"),
        (b"MSH", ["AR", ""], "100"),
        (b"MSH|||||", ["AR", ""], "100"),
        (b"MSH|^^^^|A|B|C|D|||ADT^A08|C1|P|2.5", ["AR", ""], "100"),
        (b"MSH|^~\\&|A|B|C|D|||ADT^A08||P|2.5", ["AR", ""], "101"),
        (b"MSH|^~\\&|A|B|C|D|||ADT^A08|C1|P|2.5||||||KLINGON", ["AR", "C1"], "103"),
        (b"MSH|^~\\&|A|B|C|D|||ADT^A08|C1|P|2.5||||||ASCII\rPID|1||\xff", ["AR", "C1"], "102"),
        (b"MSH|^~\\&|A|B|C|D|||ADT^A08|C1|P|2.5|||AL|NE||ASCII\rPID|1||\xff", ["CR", "C1"], "102"),
        (b"FHS|^~\\&|A|B|C|D|||F||F1\rBHS|^~\\&|\rMSH|^~\\&|A", ["AR", "F1"], "101"),
        (b"BHS|^~\\&|A|B|C|D|||F||B1\r", ["AR", "B1"], "200"),
    ],
)
def test_whatever_is_framed_has_an_answer(raw: bytes, expected: list[str], error: str) -> None:
    """With MSA-2 where it can be told, and a code of table 0357; the connection stays."""
    kept = Kept()
    with listening(kept) as server:
        answer, good = converse(server.port, frame(raw) + framed(message("NEXT")), answers=2)
    assert msa(answer)[:2] == expected
    assert "^HL70357|E|||" in answer.decode("latin-1")
    assert f"|{error}^" in answer.decode("latin-1")
    assert msa(good)[:2] == ["AA", "NEXT"]
    assert [one.head.control_id for one in kept.messages] == ["NEXT"]


def test_other_delimiters_are_answered_in_kind() -> None:
    """MSH-1 and MSH-2 of the sender."""
    text = message().translate(str.maketrans({"|": "#", "^": "!", "~": "*", "&": "%"}))
    with listening(Kept()) as server:
        (answer,) = converse(server.port, framed(text))
    assert answer.decode().startswith("MSH#!*\\%#HILUM##ADT#MAIN#")
    assert "\rMSA#AA#C1\r" in answer.decode()


def test_message_over_the_limit_is_rejected_and_its_connection_goes_on() -> None:
    """Named by its MSH-10; nothing of it reaches the handler."""
    kept = Kept()
    with listening(kept, largest_message=10_000) as server:
        big = framed(message("BIG") + "OBX|1|ED|||" + "x" * 3_000_000)
        answer, good = converse(server.port, big + framed(message("NEXT")), answers=2)
    assert msa(answer) == ["AR", "BIG", "more than 10000 bytes"]
    assert msa(good)[:2] == ["AA", "NEXT"]
    assert len(kept.messages) == 1


def test_handler_that_fails_is_answered_with_an_error() -> None:
    """AE says: again later. One message that cannot be stored does not take down those that came with it."""

    def store(batch: list[Received]) -> list[Reply]:
        if any(one.head.control_id == "BAD" for one in batch):
            raise StorageFull
        return [Reply(Decision.ACCEPTED) for _ in batch]

    with listening(store) as server:
        data = b"".join(framed(message(named)) for named in ("A", "BAD", "B"))
        answers = converse(server.port, data, answers=3)
    assert [msa(answer)[:2] for answer in answers] == [["AA", "A"], ["AE", "BAD"], ["AA", "B"]]


def test_only_peers_are_listened_to() -> None:
    """Another address is refused before it can say anything."""
    kept = Kept()
    with listening(kept, peers=["192.0.2.0/24"]) as server:
        assert converse(server.port, framed(message())) == []
    with listening(kept, peers=["127.0.0.0/8"]) as server:
        assert len(converse(server.port, framed(message()))) == 1


def test_message_that_does_not_end_is_given_up_and_silence_is_not() -> None:
    """A drip is cut at the deadline of the whole message; an idle connection stays."""
    with (
        listening(Kept(), message_timeout="300ms") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as idle,
    ):
        assert converse(server.port, b"\x0bMSH|half") == []
        idle.sendall(framed(message()))
        assert len(read_answers(idle, 1)) == 1


def test_silent_connections_keep_nobody_out() -> None:
    """With all places taken, the longest silent one gives way."""
    with listening(Kept(), max_connections=5) as server:
        ends = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
        (answer,) = converse(server.port, framed(message()))
        assert msa(answer)[0] == "AA"
        for end in ends:
            end.close()


def test_noise_without_an_end_is_ended() -> None:
    """Bytes that are no message do not keep a connection busy for ever."""
    with (
        listening(Kept()) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as end,
        pytest.raises(OSError),
    ):
        while True:
            end.sendall(b"GET / HTTP/1.1\r\n" * 1000)


def test_port_that_is_taken_is_said() -> None:
    """In one sentence."""
    with listening(Kept()) as server:
        second = MllpServer(MllpListener(port=server.port), Kept())
        with pytest.raises(ServiceUnavailable, match=r"cannot listen for HL7 on 127\.0\.0\.1"):
            second.start()
