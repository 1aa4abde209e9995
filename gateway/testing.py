"""Doubles of a PACS and an EHR, shipped with the product: for tests, the demonstration and trials of a site."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile
from gateway.hl7.acknowledgement import control_id, read_acknowledgement
from gateway.hl7.framing import Decoder, TooLarge, frame

Answer = Literal[
    "AA", "AE", "AR", "CA", "CE", "CR",  # acknowledgement codes
    "none",  # silence
    "late",  # silence, and the acknowledgement before that of the next message
    "garbage",  # a frame without HL7 in it
    "wrong id",  # AA for a message that nobody sent
    "twice",  # two acknowledgements
    "close",  # closes the connection instead of answering
    "AA, close",  # closes the connection after the acknowledgement
    "half",  # half an acknowledgement, and no more
    "CA, AA", "CA, AE", "CA, AR",  # both acknowledgements at once, as of two messages
]  # fmt: skip
"""What a `FakeEhr` does with a message."""


class RecordingPacs:
    """A `Pacs` in memory that keeps the first copy of each instance, as most archives do.

    ``answers`` gives receipts in order, then everything is accepted.
    """

    def __init__(self, answers: Sequence[Receipt] = ()) -> None:
        self.objects: dict[str, bytes] = {}  # SOP Instance UID -> file
        self.sent: list[str] = []  # SOP Instance UID of every try
        self._answers = list(answers)

    def store(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """Keeps what is accepted."""
        return {one.sop_instance_uid: self._store(one) for one in objects}

    def read_back(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """The same where the bytes are, missing where there are none."""
        return {one.sop_instance_uid: self._look(one) for one in objects}

    def echo(self) -> str:
        """Always there."""
        return "in memory"

    def _look(self, one: ObjectFile) -> Receipt:
        there = self.objects.get(one.sop_instance_uid)
        if there is None:
            return Receipt(verdict=Verdict.MISSING, answer="not there")
        same = there == one.path.read_bytes()
        return Receipt(verdict=Verdict.ACCEPTED if same else Verdict.REJECTED, answer="same" if same else "other")

    def _store(self, one: ObjectFile) -> Receipt:
        self.sent.append(one.sop_instance_uid)
        receipt = self._answers.pop(0) if self._answers else Receipt(verdict=Verdict.ACCEPTED, answer="0x0000 stored")
        if receipt.verdict is Verdict.ACCEPTED:
            self.objects.setdefault(one.sop_instance_uid, one.path.read_bytes())
        return receipt


class FakeEhr:
    """An MLLP receiver on a loopback port; a context manager that listens while it is entered.

    ``script`` says what to do with each message, in order over all connections; after its end everything is AA.
    ``on_message`` is called with each message, from the thread of its connection, before it is answered. With ``slow``
    it takes so many bytes at a time and rests for a millisecond after each.
    """

    def __init__(
        self,
        script: Sequence[Answer] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        on_message: Callable[[bytes], None] | None = None,
        slow: int = 0,
    ) -> None:
        self.messages: list[bytes] = []  # every try, in order of arrival
        self.acknowledgements: list[bytes] = []  # of what it has said of its own accord
        self.connections = 0
        self._script = list(script)
        self._address = (host, port)
        self._on_message, self._slow = on_message, slow
        self._late, self._rest, self._said = b"", threading.Event(), 0
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._listener is None:
            raise RuntimeError("it listens only while it is entered")
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def control_ids(self) -> frozenset[str]:
        """Distinct MSH-10 seen: the number of logical messages, however often each was sent."""
        with self._changed:
            return frozenset(control_id(message) for message in self.messages)

    def wait_for(self, messages: int, timeout: float = 10.0) -> bool:
        """Waits until so many distinct messages have come; False where they have not within seconds."""

        def enough() -> bool:
            return len({control_id(message) for message in self.messages}) >= messages

        with self._changed:
            return self._changed.wait_for(enough, timeout)

    def say(self, code: str, named: str, text: str = "") -> None:
        """Says something of a message that has come before, of its own accord, on every connection that is open."""
        with self._changed:
            self._said += 1
            head = f"MSH|^~\\&|EHR||HILUM||20000101000000||ACK^R01^ACK|S{self._said}|P|2.5.1|||AL|NE\r"
            for end in self._open:
                with suppress(OSError):  # closed a moment ago
                    end.sendall(frame(f"{head}MSA|{code}|{named}|{text}\r".encode()))

    def __enter__(self) -> Self:
        self._listener = socket.create_server(self._address)
        if self._slow:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._slow)  # connections inherit it
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            ends = [*self._open, self._listener] if self._listener else [*self._open]
            self._listener = None
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
            end.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self._open.add(connection)
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = Decoder()
        with suppress(OSError), connection:
            while data := connection.recv(self._slow or 65536):
                self._rest.wait(0.001 if self._slow else 0.0)
                for message in decoder.feed(data):
                    if isinstance(message, TooLarge) or not self._receive(connection, message):
                        return
        with self._changed:
            self._open.discard(connection)

    def _receive(self, connection: socket.socket, message: bytes) -> bool:
        """Records and answers a message; False where the connection is to be closed."""
        if read_acknowledgement(message) is not None:
            with self._changed:
                self.acknowledgements.append(message)
                self._changed.notify_all()
            return True
        if self._on_message:
            self._on_message(message)
        with self._changed:
            self.messages.append(message)
            answer: Answer = self._script.pop(0) if self._script else "AA"
            reply = self._late + _reply(answer, message)
            self._late = frame(_acknowledgement("AA", control_id(message))) if answer == "late" else b""
            self._changed.notify_all()
        if reply:
            connection.sendall(reply)
        return "close" not in answer


def _reply(answer: Answer, message: bytes) -> bytes:
    named = control_id(message)
    if answer in ("none", "late", "close"):
        return b""
    if answer == "garbage":
        return frame(b"\x00\xffnobody understands this")
    if answer == "wrong id":
        return frame(_acknowledgement("AA", f"{named}0"))
    if answer == "half":
        whole = frame(_acknowledgement("AA", named))
        return whole[: len(whole) // 2]
    if answer == "twice":
        return frame(_acknowledgement("AA", named)) * 2
    if answer in ("CA, AA", "CA, AE", "CA, AR"):
        return frame(_acknowledgement("CA", named)) + frame(_acknowledgement(answer[4:], named))
    return frame(_acknowledgement(answer[:2], named))


def _acknowledgement(code: str, named: str) -> bytes:
    head = f"MSH|^~\\&|EHR||HILUM||20000101000000||ACK^R01^ACK|A{named}|P|2.5.1\r"
    return f"{head}MSA|{code}|{named}\r".encode()
