"""`hilum hl7 send|listen|show|validate`: what an interface analyst needs beside a running gateway."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message
from rich.table import Table

from gateway.commands.console import console
from gateway.domain.errors import ConfigurationError
from gateway.domain.job import Receipt, Verdict
from gateway.hl7.answer import Decision, Reply
from gateway.hl7.client import MllpClient
from gateway.hl7.framing import START, Decoder
from gateway.hl7.head import MessageUnreadable, decode, lenient_text, read_head
from gateway.hl7.segments import Message, read_messages
from gateway.hl7.server import MllpServer, Received
from gateway.hl7.settings import MllpListener
from gateway.tls import ClientTls, ServerTls, client_context

_MESSAGE = re.compile(rb"(?m)^(?=MSH)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")  # NM (2.A.47)
_RESULT_STATUS = ("", *"OISAPCRFXYZMN")  # table 0123, of every version; OBR-25 may be empty
_OBSERVATION_STATUS = tuple("CDFINOPRSUWXBVA")  # table 0085, of every version
_DECISIONS = {"AA": Decision.ACCEPTED, "AE": Decision.ERROR, "AR": Decision.REJECTED}


def read_file(file: Path) -> list[bytes]:
    """The messages of a file: framed as on the wire, or one after the other, with whatever line ends; raises
    ConfigurationError where there are none."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    if START in data:
        found = [one for one in Decoder(len(data)).feed(data) if isinstance(one, bytes)]
    else:
        found = [part for part in _MESSAGE.split(data.replace(b"\r", b"\n")) if part.startswith(b"MSH")]
    if not found:
        raise ConfigurationError(f"{file}: there is no HL7 message in it")
    return [re.sub(rb"[\r\n]+", b"\r", one).rstrip(b"\r") + b"\r" for one in found]


def send(file: Path, host: str, port: int, tls: ClientTls | None, timeout: float, as_json: bool) -> int:
    """Sends every message of a file and shows each answer; returns the exit status."""
    context = client_context(tls) if tls else None
    client = MllpClient(host, port, timeout=timeout, tls=context)

    async def exchange(messages: Sequence[bytes]) -> list[tuple[str, Receipt]]:
        receipts = [(_control_id(message), await client.send(message)) for message in messages]
        await client.close()
        return receipts

    receipts = asyncio.run(exchange(read_file(file)))
    if as_json:
        rows = [{"control_id": named, "verdict": one.verdict.value, "answer": one.answer} for named, one in receipts]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        for named, one in receipts:
            print(f"{named or '(no MSH-10)'}  {one.verdict.value}  {one.answer}")
    return 0 if all(one.verdict is Verdict.ACCEPTED for _, one in receipts) else 1


def listen(listener: MllpListener, answer: str, count: int, output: Path | None) -> int:
    """Takes messages, shows and keeps them, and answers as told; ends after `count` messages (0: at Ctrl-C)."""
    if answer not in _DECISIONS:
        raise ConfigurationError("--answer must be AA, AE or AR")
    seen, ended = [0], threading.Event()

    def take(batch: Sequence[Received]) -> list[Reply]:
        for received in batch:
            seen[0] += 1
            print(
                f"-- {seen[0]} from {received.peer}, {len(received.raw)} bytes, MSH-18 {received.head.charset or 'none'}"
            )
            print(lenient_text(received.raw).replace("\r", "\n"), flush=True)
            if output is not None:
                output.mkdir(parents=True, exist_ok=True)
                (output / f"{seen[0]:06d}.hl7").write_bytes(received.raw)
        return [Reply(_DECISIONS[answer], "" if answer == "AA" else "as told by --answer", "0") for _ in batch]

    server = MllpServer(listener, take)
    server.start()
    print(f"listening on {listener.host}:{server.port}, answering {answer}", file=sys.stderr, flush=True)
    try:
        while not ended.wait(0.1):
            if count and seen[0] >= count:
                ended.wait(0.5)  # the last answer is still on its way
                ended.set()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


def show(file: Path, as_json: bool) -> None:
    """Every field of every message, by number."""
    found = [list(_fields(lenient_text(raw))) for raw in read_file(file)]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for rows in found:
        table = Table(box=None, pad_edge=False)
        for column in ("field", "value"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(row["field"], row["value"])
        console().print(table, markup=False)


def _fields(text: str) -> Iterator[dict[str, str]]:
    for message in read_messages(text):
        for segment in message.segments:
            for number in range(1, segment.size + 1):
                if value := segment.raw(number):
                    shown = value if len(value) < 400 else f"{value[:200]} … ({len(value)} characters)"
                    yield {"field": f"{segment.name}-{number}", "value": shown}


@dataclass(frozen=True)
class Judgement:
    """What is wrong with one message; nothing where it is good."""

    control_id: str
    version: str
    problems: tuple[str, ...]


def validate(file: Path, as_json: bool) -> int:
    """Says what is wrong with each message of a file; returns the exit status."""
    judgements = [judge(raw) for raw in read_file(file)]
    if as_json:
        print(json.dumps([vars(item) for item in judgements], indent=2, ensure_ascii=False))
    else:
        for item in judgements:
            verdict = "valid" if not item.problems else "; ".join(item.problems)
            print(f"{item.control_id or '(no MSH-10)'}  {item.version}  {verdict}")
    return 0 if not any(item.problems for item in judgements) else 1


def judge(raw: bytes) -> Judgement:
    """MSH and character set as our own port reads them, structure as hl7apy sees it, and what that lets pass. Z segments are
    the site's affair."""
    try:
        head = read_head(raw)
        text = decode(raw, head)
    except MessageUnreadable as error:
        return Judgement(_control_id(raw), "", (error.message,))
    plain = "\r".join(line for line in text.rstrip("\r").split("\r") if not line.startswith("Z"))
    problems: list[str] = []
    try:
        message: Any = parse_message(plain, find_groups=True)
        message.validate()
    except HL7apyException as error:
        problems.append(f"hl7apy: {error}")
    if not head.charset and not text.isascii():
        problems.append("there are characters beyond ASCII, but MSH-18 names no character set")
    for message_read in read_messages(text):
        problems += _content(message_read)
    return Judgement(head.control_id, head.version, tuple(problems))


def _content(message: Message) -> Iterator[str]:
    """What is wrong with values, as far as it can be told without knowing what the message is to say."""
    for patient in message.all("PID"):
        if not patient.get(3):
            yield "PID-3 is empty"
    is_result = message.type == ("ORU", "R01")
    for request in message.all("OBR") if is_result else ():
        if request.get(25) not in _RESULT_STATUS:
            yield f"OBR-25 {request.get(25)!r} is not of table 0123"
    for position, item in enumerate(message.all("OBX"), start=1):
        if item.raw(5) and not item.get(2):
            yield f"OBX {position}: OBX-2 is empty, so what OBX-5 holds cannot be told"
        if item.get(2) == "NM" and item.get(5) and not _NUMBER.fullmatch(item.get(5)):
            yield f"OBX {position}: OBX-2 is NM, but OBX-5 {item.get(5)[:20]!r} is not a number"
        if is_result and item.get(11) not in _OBSERVATION_STATUS:
            yield f"OBX {position}: OBX-11 {item.get(11)!r} is not of table 0085"


def _control_id(raw: bytes) -> str:
    try:
        return read_head(raw).control_id
    except MessageUnreadable:
        return ""


def listener_settings(host: str, port: int, charset: str, tls: ServerTls | None) -> MllpListener:
    """A port that anybody may send to: it is for trials."""
    everybody = ("0.0.0.0/0", "::/0")
    return MllpListener(host=host, port=port, charset=charset, tls=tls, peers=everybody)
