"""A C-STORE sender that costs next to nothing: what it measures is the receiver.

`python -m tests.benchmarks.sender PORT CALLED_AET FILE...` waits for a line on stdin, sends every file over one association
and writes a line of JSON for each acknowledged instance: SOP Instance UID, status, seconds from first byte to answer.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

LARGEST = 131072  # bytes of a PDU, where the receiver takes so much


@dataclass(frozen=True)
class Item:
    """One instance to send."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    pieces: Iterable[bytes | memoryview]  # of the dataset


def read_item(path: Path) -> Item:
    """An instance from a file."""
    meta, data = read_file_meta_info(path), memoryview(path.read_bytes())
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    return Item(
        str(meta.MediaStorageSOPClassUID),
        str(meta.MediaStorageSOPInstanceUID),
        str(meta.TransferSyntaxUID),
        [data[start:]],
    )


class Sending:
    """One association."""

    def __init__(self, port: int, called: str, sop_class_uid: str, transfer_syntax_uid: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(association_request(called, sop_class_uid, transfer_syntax_uid))
        kind, answer = self._pdu()
        if kind != 2:
            raise ConnectionError(f"no association: PDU {kind}")
        theirs = answer.index(b"\x51\x00\x00\x04")
        self._room = min(struct.unpack_from(">I", answer, theirs + 4)[0] or LARGEST, LARGEST) - 6

    def store(self, item: Item) -> int:
        """Sends one instance and returns the status of the answer."""
        command = _command(item)
        self._socket.sendall(struct.pack(">BBIIBB", 4, 0, len(command) + 6, len(command) + 2, 1, 3) + command)
        for piece, last in _last_known(_cut(item.pieces, self._room)):
            header = struct.pack(">BBIIBB", 4, 0, len(piece) + 6, len(piece) + 2, 1, 2 if last else 0)
            self._all([header, piece])
        kind, answer = self._pdu()
        if kind != 4:
            raise ConnectionError(f"no answer: PDU {kind}")
        place = answer.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
        return int(struct.unpack_from("<H", answer, place + 8)[0])

    def release(self) -> None:
        """Ends the association in good order."""
        self._socket.sendall(struct.pack(">BBI4x", 5, 0, 4))
        self._pdu()
        self.close()

    def close(self) -> None:
        """Ends it, in whatever order it is."""
        self._socket.close()

    def _all(self, parts: list[bytes | memoryview]) -> None:
        sent = self._socket.sendmsg(parts)
        whole = sum(map(len, parts))
        if sent < whole:
            self._socket.sendall(b"".join(parts)[sent:])

    def _pdu(self) -> tuple[int, bytes]:
        header = self._exactly(6)
        return header[0], self._exactly(struct.unpack(">I", header[2:])[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data


def _cut(pieces: Iterable[bytes | memoryview], room: int) -> Iterator[memoryview]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, max(len(view), 1), room):
            yield view[start : start + room]


def _last_known(pieces: Iterator[memoryview]) -> Iterator[tuple[memoryview, bool]]:
    held = next(pieces)
    for piece in pieces:
        yield held, False
        held = piece
    yield held, True


def _command(item: Item) -> bytes:
    def element(number: int, value: bytes) -> bytes:
        padded = value + b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(padded)) + padded

    body = b"".join(
        [
            element(0x0002, item.sop_class_uid.encode()),
            element(0x0100, b"\x01\x00"),
            element(0x0110, b"\x01\x00"),
            element(0x0700, b"\x00\x00"),
            element(0x0800, b"\x01\x00"),
            element(0x1000, item.sop_instance_uid.encode()),
        ]
    )
    return element(0, struct.pack("<I", len(body))) + body


def association_request(called: str, sop_class_uid: str, transfer_syntax_uid: str) -> bytes:
    """An A-ASSOCIATE-RQ with one presentation context, of id 1."""
    context = build_context(sop_class_uid, transfer_syntax_uid)
    context.context_id = 1
    size, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    size.maximum_length_received, implementation.implementation_class_uid = LARGEST, "1.2.3.4"
    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = "SENDER", called
    asked.presentation_context_definition_list, asked.user_information = [context], [size, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(asked)
    return bytes(pdu.encode())


def main() -> None:
    """See above."""
    port, called, files = int(sys.argv[1]), sys.argv[2], [Path(name) for name in sys.argv[3:]]
    items = [read_item(path) for path in files]
    sending = Sending(port, called, items[0].sop_class_uid, items[0].transfer_syntax_uid)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        for item in items:
            started = time.perf_counter()
            status = sending.store(item)
            print(json.dumps([item.sop_instance_uid, status, time.perf_counter() - started]), flush=True)
        sending.release()
    except OSError:
        sys.exit(1)  # the receiver is gone, and whoever started us knows


if __name__ == "__main__":
    main()
