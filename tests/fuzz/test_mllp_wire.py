"""Ten thousand bad messages to the MLLP port: an answer for each, no crash, memory flat.

Made from seeds, so that a failure can be repeated: `SEEDS` names each kind; add the number that found a defect to `KEPT`.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from gateway.hl7.framing import Decoder, frame
from gateway.orders.inbox import OrderInbox
from gateway.orders.settings import OrderSettings
from gateway.store.spool import LocalSpool
from tests.support.ledgers import make_ledger
from tests.support.mllp import Kept, listening, message, msa

COUNT = 10_000
LARGEST = 1 << 21  # bytes; a message of the longest kind is within it
KEPT = (0, 1, 7, 4711)  # seeds of every kind that are always tried
SIGNS = "|^~\\&\r\n\0 MSHPID09AZ葉é\x1b"


def _whole(made: random.Random) -> str:
    return message(f"C{made.randrange(10**9)}", charset=made.choice(["", "UNICODE UTF-8", "ASCII", "GB 18030-2000"]))


def truncated(made: random.Random) -> bytes:
    raw = _whole(made).encode()
    return raw[: made.randrange(len(raw))]


def cut() -> Iterator[bytes]:
    """One message, cut at each of its bytes."""
    raw = message("CUT", patient="1||葉^大雄", charset="GB 18030-2000", modes="AL|AL").encode("gb18030")
    yield from (raw[:length] for length in range(len(raw)))


def swapped(made: random.Random) -> bytes:
    """Delimiters of another kind in the middle of it."""
    one, other = made.sample("|^~\\&", 2)
    text = _whole(made)
    at = made.randrange(len(text))
    return (text[:at] + text[at:].replace(one, other)).encode()


def lying(made: random.Random) -> bytes:
    """MSH-18 names another character set than the bytes are in."""
    codec = made.choice(["utf-16", "gb18030", "cp950", "cp932", "latin-1", "utf-8", "iso2022_jp_ext"])
    named = made.choice(
        ["UNICODE UTF-8", "ASCII", "BIG-5", "SHIFT_JIS", "KLINGON", "8859/1", "~ISO IR87", "UNICODE UTF-16"]
    )
    return (
        message(patient="1||葉^大雄", charset=named)
        .encode(codec, "replace")
        .replace(b"\x0b", b"")
        .replace(b"\x1c", b"")
    )


def batched(made: random.Random) -> bytes:
    heads = ["FHS|^~\\&|A|B", "BHS|^~\\&|A|B|C|D|||X||B1", "FHS", "BHS|", "BTS|1", "FTS|1"]
    return ("\r".join(made.choices(heads, k=made.randrange(1, 5))) + "\r" + _whole(made) * made.randrange(3)).encode()


def enormous(made: random.Random) -> bytes:
    """A field of a megabyte; sometimes more than the port takes."""
    field = made.choice(["x", "|", "\\", "~^&", "葉"]) * (1_000_000 // made.choice([1, 3, 1]))
    return (_whole(made) + f"OBX|1|TX|||{field}")[: LARGEST * 2].encode()


def nameless(made: random.Random) -> bytes:
    """MSH-10 is not there, or MSH ends before it."""
    fields = _whole(made).split("\r")[0].split("|")
    return "|".join([*fields[: made.randrange(1, 10)], *[""] * made.randrange(3)]).encode()


def nested(made: random.Random) -> bytes:
    """Escapes within escapes, and escapes without an end."""
    piece = "".join(
        made.choices(
            ["\\", "\\E\\", "\\X0D\\", "\\F", "X41\\", "\\.br\\", "\\C2842\\", "\\Z"], k=made.randrange(1, 3000)
        )
    )
    return message(piece[:50], patient=piece).encode()


def scrambled(made: random.Random) -> bytes:
    """Signs that mean something, in no order."""
    return "".join(made.choices(SIGNS, k=made.randrange(400))).encode().replace(b"\x0b", b"").replace(b"\x1c", b"")


def flipped(made: random.Random) -> bytes:
    """Random bytes in the place of good ones."""
    raw = bytearray(_whole(made).encode())
    for _ in range(made.randrange(1, 20)):
        raw[made.randrange(len(raw))] = made.choice([b for b in range(256) if b not in (0x0B, 0x1C)])
    return bytes(raw)


SEEDS: dict[str, tuple[Callable[[random.Random], bytes], int]] = {
    "truncated": (truncated, 16), "swapped": (swapped, 16), "lying": (lying, 16), "batched": (batched, 10),
    "nameless": (nameless, 10), "nested": (nested, 10), "scrambled": (scrambled, 12), "flipped": (flipped, 10),
    "enormous": (enormous, 0),
}  # fmt: skip
"""Kind -> how it is made, and its share in percent; the enormous ones are counted apart."""


def bad_messages() -> Iterator[tuple[str, bytes]]:
    """Each with its name, `kind-seed`."""
    for kind, (make, share) in SEEDS.items():
        for seed in [*KEPT, *range(10_000, 10_000 + COUNT * share // 100)]:
            yield f"{kind}-{seed}", make(random.Random(f"{kind}-{seed}"))
    for length, raw in enumerate(cut()):
        yield f"cut-{length}", raw
    for seed in range(20):
        yield f"enormous-{seed}", enormous(random.Random(f"enormous-{seed}"))


def test_every_bad_message_has_its_answer_and_memory_stays_flat() -> None:
    """One connection for all of them, and behind each a good one: it is accepted, and before that the bad one is answered
    (twice where its MSH-15 and 16 seem to ask for both acknowledgements)."""
    process = psutil.Process(os.getpid())
    with (
        listening(Kept(forget=True), largest_message=LARGEST) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        answered, before, decoder = 0, 0, Decoder()
        for number, (name, raw) in enumerate(bad_messages()):
            good = f"GOOD{number}"
            connection.sendall(frame(raw) + frame(message(good).encode()))
            answers = list(_until(connection, decoder, good))
            assert 2 <= len(answers) <= 3, name
            assert {msa(answer)[0][-1] for answer in answers} <= set("AER"), name
            assert msa(answers[-1])[0] == "AA", name
            answered += 1
            if answered == 2000:
                before = process.memory_info().rss
        grown = process.memory_info().rss - before
    assert answered >= COUNT
    assert grown < 64 * 1024 * 1024, f"{grown} bytes more"


def test_what_was_accepted_of_them_is_read_and_ends(tmp_path: Path) -> None:
    """The same messages with the real inbox behind the port: each that was accepted is durable, and then says something, says
    nothing, or is a dead letter with a reason; none is a defect of ours, and none stands in the way of the next."""
    ledger = make_ledger(tmp_path)
    settings = OrderSettings(port=0)
    inbox = OrderInbox(ledger, LocalSpool(tmp_path / "spool"), settings.conventions(), settings.codec)
    sample = [one for one in bad_messages() if _is_of_the_sample(one[0])]
    accepted = 0
    with (
        listening(inbox.take, largest_message=LARGEST) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        decoder = Decoder()
        for number, (name, raw) in enumerate(sample):
            connection.sendall(frame(raw) + frame(message(f"GOOD{number}").encode()))
            answers = [msa(answer) for answer in _until(connection, decoder, f"GOOD{number}")]
            assert answers[-1][0] == "AA", name
            accepted += {answer[0][-1] for answer in answers[:-1]} == {"A"}
    while inbox.read_waiting():
        pass
    rows = ledger.list_messages(100_000)
    assert len(sample) <= len(rows) <= len(sample) + accepted
    assert accepted > len(sample) / 4
    assert {row["state"] for row in rows} <= {"applied", "ignored", "unreadable", "conflict"}
    assert not [row for row in rows if "internal error" in row["reason"]]
    ledger.close()


def _is_of_the_sample(name: str) -> bool:
    """Every tenth of those that are drawn, those that are kept, and every cut."""
    kind, _, seed = name.rpartition("-")
    return kind == "cut" or int(seed) in KEPT or int(seed) % 10 == 0


def _until(connection: socket.socket, decoder: Decoder, named: str) -> Iterator[bytes]:
    """Answers up to that for a message."""
    while True:
        data = connection.recv(1 << 16)
        assert data, f"the connection was ended before {named}"
        for answer in decoder.feed(data):
            assert isinstance(answer, bytes)
            yield answer
            if msa(answer)[1] == named:
                return
