"""A peer that says exactly the bytes a test wants, and hears exactly what comes back."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from tests.benchmarks.sender import association_request

MR = str(MRImageStorage)
ABORT, REJECTED = 7, 3


@contextmanager
def peer(port: int) -> Iterator[socket.socket]:
    """A connection, closed in the end."""
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.settimeout(15)
        yield raw


@contextmanager
def associated(port: int) -> Iterator[socket.socket]:
    """A connection with an association: context 1 is MR Image Storage, explicit VR little endian."""
    with peer(port) as raw:
        raw.sendall(association_request("HILUM", MR, str(ExplicitVRLittleEndian)))
        kind, _ = pdu(raw)
        assert kind == 2
        yield raw


def pdu(raw: socket.socket) -> tuple[int, bytes]:
    """The next PDU: its type and what it holds; type 0 where the other side has closed."""
    header = _exactly(raw, 6)
    if len(header) < 6:
        return 0, b""
    return header[0], _exactly(raw, struct.unpack(">I", header[2:])[0])


def _exactly(raw: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            more = raw.recv(count - len(data))
        except ConnectionError:
            return b""
        if not more:
            return b""
        data += more
    return data


def p_data(data: bytes, *, control: int, context: int = 1) -> bytes:
    """One fragment in one P-DATA-TF; control 1 is a command, 2 the last fragment."""
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, context, control) + data


def command(*elements: tuple[int, bytes]) -> bytes:
    """A command set of these elements (number of group 0000, value)."""
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def store_request(uid: str, *, dataset: bool = True, field: int = 1) -> bytes:
    """A C-STORE-RQ, or with another command field something like it."""
    padded = uid.encode() + b"\0" * (len(uid) % 2)
    return command(
        (0x0002, MR.encode() + b"\0" * (len(MR) % 2)),
        (0x0100, struct.pack("<H", field)),
        (0x0110, b"\7\0"),
        (0x0700, b"\0\0"),
        (0x0800, b"\1\0" if dataset else b"\1\1"),
        (0x1000, padded),
    )


def status(answer: bytes) -> int:
    """(0000,0900) of the command set in a P-DATA-TF."""
    place = answer.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
    return int(struct.unpack_from("<H", answer, place + 8)[0])


def drip(raw: socket.socket, data: bytes | Sequence[bytes], pause: float, patience: float) -> float:
    """Says a byte, or a piece, at a time until the other side has enough; returns after how many seconds that was."""
    started = time.monotonic()
    raw.settimeout(pause)
    for piece in data:
        assert time.monotonic() - started < patience, "nobody minds"
        try:
            raw.sendall(bytes([piece]) if isinstance(piece, int) else piece)
            if not raw.recv(1):
                break
        except TimeoutError:
            continue  # nothing was said: the pause is over
        except OSError:
            break
        else:
            break
    return time.monotonic() - started
