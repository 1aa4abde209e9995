"""An MLLP server of ours with a handler that keeps what it is given, and the messages that tests send to it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from gateway.hl7.answer import ACCEPTED, Reply
from gateway.hl7.framing import Decoder, TooLarge, frame
from gateway.hl7.server import MllpServer, Received
from gateway.hl7.settings import MllpListener


def message(named: str = "C1", patient: str = "P1^^^H||Doe^Jane", *, charset: str = "", modes: str = "|") -> str:
    """An ADT^A08; `modes` is MSH-15 and MSH-16."""
    head = f"MSH|^~\\&|ADT|MAIN|HILUM||20240101||ADT^A08^ADT_A01|{named}|P|2.5.1|||{modes}||{charset}"
    return f"{head}\rEVN||20240101\rPID|1||{patient}\rPV1|1|I\r"


class Kept:
    """A handler that keeps everything and answers by `say`."""

    def __init__(self, say: Callable[[Received], Reply] = lambda _: ACCEPTED, *, forget: bool = False) -> None:
        self.batches: list[list[Received]] = []
        self._forget = forget
        self._say = say
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, batch: Sequence[Received]) -> list[Reply]:
        self.entered.set()
        self.gate.wait(10)
        if not self._forget:
            self.batches.append(list(batch))
        return [self._say(one) for one in batch]

    @property
    def messages(self) -> list[Received]:
        """All, in the order in which they were handed over."""
        return [one for batch in self.batches for one in batch]


@contextmanager
def listening(handler: Callable[[Sequence[Received]], Sequence[Reply]], **settings: object) -> Iterator[MllpServer]:
    """A server on a free port."""
    server = MllpServer(MllpListener.model_validate({"port": 0, **settings}), handler)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def converse(
    port: int, *pieces: bytes, answers: int = 1, tls: ssl.SSLContext | None = None, timeout: float = 10
) -> list[bytes]:
    """Sends bytes as they are and reads so many answers; fewer where the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as plain:
        connection = tls.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain
        for piece in pieces:
            connection.sendall(piece)
        return read_answers(connection, answers)


def read_answers(connection: socket.socket, answers: int) -> list[bytes]:
    """So many framed messages, fewer where the connection ends."""
    decoder, found = Decoder(), list[bytes]()
    while len(found) < answers:
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            break
        if not data:
            break
        found += [one for one in decoder.feed(data) if not isinstance(one, TooLarge)]
    return found


def framed(text: str, codec: str = "utf-8") -> bytes:
    """A message in its frame."""
    return frame(text.encode(codec))


def msa(answer: bytes) -> list[str]:
    """MSA-1, MSA-2 and MSA-3 of an acknowledgement."""
    line = next(line for line in answer.decode("latin-1").split("\r") if line.startswith("MSA"))
    return [*line.split("|")[1:], "", "", ""][:3]


@contextmanager
def tls_tunnel(context: ssl.SSLContext, port: int) -> Iterator[int]:
    """A plain port whose connections go on by TLS to a port of this machine, for clients without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    near = listener.accept()[0]
                    far = context.wrap_socket(
                        socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"
                    )
                    for one, other in ((near, far), (far, near)):
                        threading.Thread(target=_pump, args=(one, other), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
