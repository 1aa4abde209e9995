"""PDUs of the DICOM upper layer on a connection (PS3.8 9.3): framing, limits, deadlines; fragments are never copied."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NoReturn

from gateway.domain.errors import ConnectionLost, UpperLayerError

_BUFFER = 256 * 1024  # bytes
_LARGEST_REQUEST = (
    1024 * 1024
)  # bytes of an A-ASSOCIATE-RQ: 128 contexts with every transfer syntax there is are 300 KB
_LARGEST_COMMAND = 64 * 1024  # bytes of a command set
_TOLERANCE = 0.05  # of a time limit, for which nothing is set anew
_FAREWELL = 2.0  # seconds for the peer to read our last word and close
_COURTESY = 0.3  # seconds of these in which only the peer closes, as PS3.8 has it (Sta13)

_PDU, _ITEM = struct.Struct(">BxI"), struct.Struct(">IBB")
_COMMAND, _LAST = 0x01, 0x02  # message control header (PS3.8 annex E.2)
DATASET = 0x00

UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = (
    1,
    2,
    6,
)  # reasons of an A-ABORT by the provider (PS3.8 table 9-26)

Sink = Callable[[Sequence[memoryview]], None]


class PduType(IntEnum):
    """PS3.8 9.3.1."""

    A_ASSOCIATE_RQ = 1
    A_ASSOCIATE_AC = 2
    A_ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    A_RELEASE_RQ = 5
    A_RELEASE_RP = 6
    A_ABORT = 7


RELEASE_RESPONSE = _PDU.pack(PduType.A_RELEASE_RP, 4) + bytes(4)


def rejection(result: int, source: int, diagnostic: int) -> bytes:
    """An A-ASSOCIATE-RJ."""
    return _PDU.pack(PduType.A_ASSOCIATE_RJ, 4) + bytes((0, result, source, diagnostic))


def abort(reason: int | None = None) -> bytes:
    """An A-ABORT: by the service provider for a reason, or by the service user, who gives none."""
    return _PDU.pack(PduType.A_ABORT, 4) + (bytes(4) if reason is None else bytes((0, 0, 2, reason)))


def data_pdus(context: int, command: bytes, dataset: bytes | None, largest: int) -> bytes:
    """P-DATA-TF PDUs with one message; none is longer than the peer takes (0: any length)."""
    room = max(largest - 6, 1) if largest else 1 << 24
    parts = []
    for kind, data in ((_COMMAND, command), (DATASET, dataset)):
        for start in range(0, len(data or b""), room):
            piece = (data or b"")[start : start + room]
            last = _LAST if start + room >= len(data or b"") else 0
            parts.append(_PDU.pack(PduType.P_DATA_TF, len(piece) + 6))
            parts.append(_ITEM.pack(len(piece) + 2, context, kind | last) + piece)
    return b"".join(parts)


def collector(data: bytearray, most: int) -> Sink:
    """A sink for what is small enough for memory."""

    def collect(pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            if len(data) + len(piece) > most:
                raise UpperLayerError("a message is absurdly long", INVALID_PARAMETER)
            data.extend(piece)

    return collect


class Wire:
    """One connection, read by one thread.

    ``idle`` seconds may pass between PDUs and ``whole`` seconds while one comes in, however slowly its bytes drip. A message
    may take both, and a second for every ``slowest`` bytes of it: tiny PDUs in good time bring it to no end.
    Raises ConnectionLost when the connection ends or is too slow, UpperLayerError for what is no DICOM.
    """

    def __init__(self, connection: socket.socket, *, largest: int, idle: float, whole: float, slowest: float) -> None:
        self._connection, self._largest, self._idle, self._whole = connection, largest, idle, whole
        self._slowest = slowest
        self._view = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0  # what has been read and not yet looked at
        self._left = 0  # bytes of the present P-DATA-TF
        self._pieces: list[memoryview] = []  # of the present message, in the buffer
        self._deadline = self._due = 0.0  # of the present PDU, and of the present message; 0 between messages
        self._limited = 0.0  # seconds that the socket waits for bytes
        if not isinstance(connection, ssl.SSLSocket):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(idle))

    def associate_request(self, seconds: float) -> bytes:
        """The whole A-ASSOCIATE-RQ that every connection begins with, however it is cut up, within so many seconds."""
        self._deadline = time.monotonic() + seconds
        header = self._exactly(_PDU.size)
        kind, length = _PDU.unpack(header)
        if kind != PduType.A_ASSOCIATE_RQ:
            raise UpperLayerError("the connection does not begin with an A-ASSOCIATE-RQ", UNEXPECTED_PDU)
        if length > _LARGEST_REQUEST:
            raise UpperLayerError("the A-ASSOCIATE-RQ is absurdly long", INVALID_PARAMETER)
        return header + self._exactly(length)

    def command(self) -> tuple[int, bytes] | PduType:
        """The next command set with its presentation context, or which PDU came instead of one."""
        if not self._left and (kind := self._next_pdu()) is not PduType.P_DATA_TF:
            return kind
        data = bytearray()

        context = self._message(None, _COMMAND, collector(data, _LARGEST_COMMAND))
        return context, bytes(data)

    def dataset(self, context: int, sink: Sink) -> None:
        """Hands a dataset to ``sink``, several pieces at a time; they are only there until the sink returns."""
        self._message(context, DATASET, sink)

    def send(self, data: bytes) -> None:
        """Sends it all."""
        try:
            if isinstance(self._connection, ssl.SSLSocket):
                self._connection.settimeout(self._idle)
            self._connection.sendall(data)
        except OSError as error:
            raise ConnectionLost("the peer does not take our answer") from error

    def farewell(self, data: bytes = b"") -> None:
        """Says a last word and waits a little for the peer to close: that is its part (PS3.8 9.2, Sta13)."""
        deadline = time.monotonic() + _FAREWELL
        try:
            self._connection.settimeout(_FAREWELL)
            self._connection.sendall(data)
            while (left := deadline - time.monotonic()) > 0:
                self._connection.settimeout(left)
                if not self._connection.recv_into(self._view):
                    return
        except OSError:
            return  # nobody listens any more

    def _message(self, context: int | None, kind: int, sink: Sink) -> int:
        self._due = time.monotonic() + self._idle + self._whole
        while True:
            if not self._left:
                if self._end - self._start < _PDU.size:
                    self._empty_into(sink)
                if (other := self._next_pdu()) is not PduType.P_DATA_TF:
                    self._out_of_place(other)
            if self._end - self._start < _ITEM.size:
                self._empty_into(sink)
            length, its_context, control = _ITEM.unpack(self._exactly(_ITEM.size))
            rest = length - 2
            self._left -= _ITEM.size + rest
            if rest < 0 or self._left < 0:
                raise UpperLayerError("a fragment is longer than its PDU", INVALID_PARAMETER)
            if control & _COMMAND != kind or its_context != (its_context if context is None else context):
                raise UpperLayerError("a fragment belongs to another message", INVALID_PARAMETER)
            context = its_context
            while rest:
                if self._start == self._end:
                    self._empty_into(sink)
                    self._fill()
                piece = self._some(rest)
                rest -= len(piece)
                self._pieces.append(piece)
            if control & _LAST:
                self._empty_into(sink)
                self._due = 0.0
                return int(its_context)

    def _empty_into(self, sink: Sink) -> None:
        """Before the buffer is filled anew: what has been found in it is handed over together."""
        if self._pieces:
            began = time.monotonic()
            sink(self._pieces)
            self._pieces.clear()
            self._due += time.monotonic() - began  # our own slowness is not the peer's

    def _out_of_place(self, kind: PduType) -> NoReturn:
        if kind is PduType.A_ABORT:
            raise ConnectionLost("aborted by the peer in the middle of a message")
        raise UpperLayerError(f"{kind.name} in the middle of a message", UNEXPECTED_PDU)

    def _next_pdu(self) -> PduType:
        if self._start == self._end:
            self._deadline = self._within(self._idle)
            self._fill()
        self._deadline = self._within(self._whole)
        kind, length = _PDU.unpack(self._exactly(_PDU.size))
        if kind == PduType.P_DATA_TF:
            if not _ITEM.size <= length <= self._largest:
                raise UpperLayerError("a P-DATA-TF is not as long as was agreed", INVALID_PARAMETER)
            self._left = length
            if self._due:
                self._due += length / self._slowest
            return PduType.P_DATA_TF
        if kind > PduType.A_ABORT or not kind:
            raise UpperLayerError("a PDU of an unknown type", UNRECOGNIZED_PDU)
        if kind < PduType.P_DATA_TF:
            raise UpperLayerError(f"{PduType(kind).name} within an association", UNEXPECTED_PDU)
        if length != 4:
            raise UpperLayerError("a PDU has an impossible length", INVALID_PARAMETER)
        self._exactly(length)
        return PduType(kind)

    def _within(self, seconds: float) -> float:
        """When that will be, or before it when the present message must be over."""
        end = time.monotonic() + seconds
        return min(end, self._due) if self._due else end

    def _exactly(self, count: int) -> bytes:
        if self._end - self._start >= count:  # nearly always
            piece = bytes(self._view[self._start : self._start + count])
            self._start += count
            return piece
        data = bytearray()
        while len(data) < count:
            data += self._some(count - len(data))
        return bytes(data)

    def _some(self, count: int) -> memoryview:
        """At least one byte and at most ``count``."""
        if self._start == self._end:
            self._fill()
        piece = self._view[self._start : min(self._end, self._start + count)]
        self._start += len(piece)
        return piece

    def _fill(self) -> None:
        """Reads what there is into the empty buffer."""
        self._end = 0
        while not self._end:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise ConnectionLost("the peer is silent, or too slow")
            try:
                self._wait_at_most(left)
                self._start, self._end = 0, self._connection.recv_into(self._view)
            except (TimeoutError, BlockingIOError):
                self._limited = 0.0  # it was set for a shorter wait: what is left is waited for now
            except OSError as error:
                raise ConnectionLost("the connection broke") from error
            else:
                if not self._end:
                    raise ConnectionLost("the peer closed the connection")

    def _wait_at_most(self, seconds: float) -> None:
        # The kernel's own timeout spares a poll before each call, and with it a change of the thread that runs. OpenSSL
        # would try for ever on it. It is only ever set to less, since setting it costs as much as a small read.
        if isinstance(self._connection, ssl.SSLSocket):
            self._connection.settimeout(seconds)
        elif not 0 < self._limited <= (1 + _TOLERANCE) * seconds:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
            self._limited = seconds


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6) or 1)
