"""HL7 over MLLP on loopback: messages a second with durable acknowledgements, and a message with a large PDF."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from hl7.mllp import start_hl7_server
from hl7.mllp.streams import HL7StreamReader, HL7StreamWriter
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, insert

from gateway.domain.job import Verdict
from gateway.hl7.answer import ACCEPTED, Reply
from gateway.hl7.client import MllpClient
from gateway.hl7.framing import Decoder, frame
from gateway.hl7.server import MllpServer, Received
from gateway.hl7.settings import MllpListener
from gateway.store.engine import open_engine, writing

_SECONDS = 4.0
_AT_ONCE = 64  # messages
_PDF = 10_000_000  # bytes before Base64
_TEXT = (
    "MSH|^~\\&|ADT|MAIN|HILUM||20240101||ADT^A08^ADT_A01|{number}|P|2.5.1||||||UNICODE UTF-8\r"
    "EVN||20240101\rPID|1||P1^^^H||Doe^Jane||19700101|F\rPV1|1|I\r"
)
_inbox = Table(
    "inbox",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("named", String(40)),
    Column("raw", LargeBinary),
)


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as directory:
        engine = open_engine(f"sqlite:///{directory}/inbox.db")
        _inbox.metadata.create_all(engine)

        def store(batch: Sequence[Received]) -> list[Reply]:
            with writing(engine) as connection:
                connection.execute(insert(_inbox), [{"named": one.head.control_id, "raw": one.raw} for one in batch])
            return [ACCEPTED] * len(batch)

        server = MllpServer(MllpListener(port=0), store)
        server.start()
        try:
            print(
                f"HL7 over MLLP, one message at a time on each connection, {_SECONDS:.0f} s each; CPU of the receiver alone"
            )
            for senders in (1, 16, 64):
                _row(f"Hilum, in SQLite with synchronous=FULL before AA, {senders} connections", server.port, senders)
            with _python_hl7() as port:
                _row("python-hl7 asyncio server, nothing stored, 16 connections", port, 16)
            _row("the same, 1 connection, 64 messages at once", server.port, 0)
            print(f"  10 MB PDF in one ORU (13.3 MB of Base64): {_large(server.port):.2f} s to AA")
        finally:
            server.stop()
            engine.dispose()


def _row(what: str, port: int, senders: int) -> None:
    before = time.process_time()
    rate = _rate(port, senders)
    spent = (time.process_time() - before) / (rate * _SECONDS)
    print(f"  {what:70} {rate:7.0f} messages/s {spent * 1e6:6.0f} us CPU a message")


@contextmanager
def _python_hl7() -> Iterator[int]:
    """python-hl7's own server, which acknowledges what it has parsed."""

    async def serve(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while not writer.is_closing():
                message = await reader.readmessage()
                writer.writemessage(message.create_ack())
                await writer.drain()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start_hl7_server(serve, "127.0.0.1", 0), loop).result()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def _rate(port: int, senders: int) -> float:
    """Messages a second; the senders are a process of their own, as they would be. None: one that does not wait."""
    command = [sys.executable, "-m", "tests.benchmarks.hl7", str(port), str(senders)]
    return float(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


def _pipelined(port: int) -> float:
    """One connection that sends 64 messages before it looks for their acknowledgements."""
    end, done, started = time.perf_counter() + _SECONDS, 0, time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        while time.perf_counter() < end:
            block = [frame(_TEXT.format(number=f"{done + number}").encode()) for number in range(_AT_ONCE)]
            connection.sendall(b"".join(block))
            decoder, answered = Decoder(), 0
            while answered < _AT_ONCE:
                answered += len(decoder.feed(connection.recv(1 << 18)))
            done += _AT_ONCE
    return done / (time.perf_counter() - started)


def _large(port: int) -> float:
    message = (
        _TEXT.format(number="BIG") + "OBX|1|ED|PDF||^application^pdf^Base64^" + "A" * (_PDF * 4 // 3) + "\r"
    ).encode()

    async def send() -> float:
        client = MllpClient("127.0.0.1", port, timeout=60)
        started = time.perf_counter()
        receipt = await client.send(message)
        assert receipt.verdict is Verdict.ACCEPTED, receipt
        await client.close()
        return time.perf_counter() - started

    return min(asyncio.run(send()) for _ in range(3))


async def _send_for_a_while(port: int, senders: int) -> float:
    end = time.perf_counter() + _SECONDS

    async def one(sender: int) -> int:
        client, done = MllpClient("127.0.0.1", port, timeout=60), 0
        while time.perf_counter() < end:
            receipt = await client.send(_TEXT.format(number=f"{sender}-{done}").encode())
            assert receipt.verdict is Verdict.ACCEPTED, receipt
            done += 1
        await client.close()
        return done

    started = time.perf_counter()
    done = sum(await asyncio.gather(*(one(sender) for sender in range(senders))))
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        port, senders = int(sys.argv[1]), int(sys.argv[2])
        print(json.dumps(asyncio.run(_send_for_a_while(port, senders)) if senders else _pipelined(port)))
    else:
        main()
