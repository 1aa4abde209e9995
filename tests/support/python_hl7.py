"""python-hl7's asyncio server: a receiver that is not ours."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import hl7
from hl7.mllp import start_hl7_server
from hl7.mllp.streams import HL7StreamReader, HL7StreamWriter


@dataclass
class PythonHl7:
    """One that listens."""

    loop: asyncio.AbstractEventLoop
    port: int = 0
    received: list[hl7.Message] = field(default_factory=list)  # as it has parsed them
    writers: list[HL7StreamWriter] = field(default_factory=list)

    def say(self, message: hl7.Message) -> None:
        """Sends a message on the connection that came last."""
        self.loop.call_soon_threadsafe(self.writers[-1].writemessage, message)


@contextmanager
def python_hl7(encoding: str, tls: ssl.SSLContext | None = None, codes: Sequence[str] = ("AA",)) -> Iterator[PythonHl7]:
    """It parses what comes, and acknowledges it by itself with each of these codes."""
    loop = asyncio.new_event_loop()
    found = PythonHl7(loop)

    async def serve(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        found.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                message = await reader.readmessage()
                found.received.append(message)
                for code in codes:
                    writer.writemessage(message.create_ack(code))
                await writer.drain()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    # Its reader takes 64 KiB unless it is told otherwise.
    start = start_hl7_server(serve, "127.0.0.1", 0, encoding=encoding, ssl=tls, limit=1 << 26)
    server = asyncio.run_coroutine_threadsafe(start, loop).result()
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
