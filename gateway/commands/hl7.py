"""`hilum hl7 send|listen|show|validate`: what an interface analyst needs beside a running gateway."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from gateway.commands.console import console
from gateway.commands.hl7_judge import field_names, judge
from gateway.domain.errors import ConfigurationError
from gateway.domain.job import Receipt, Verdict
from gateway.hl7.answer import Decision, Reply
from gateway.hl7.charset import codec_of
from gateway.hl7.client import MllpClient
from gateway.hl7.framing import START, Decoder
from gateway.hl7.head import MessageUnreadable, attempt_head, decode, lenient_text, read_head
from gateway.hl7.segments import read_messages
from gateway.hl7.server import MllpServer, Received
from gateway.hl7.settings import MllpListener
from gateway.tls import ClientTls, ServerTls, client_context

_MESSAGE = re.compile(rb"(?m)^(?=MSH)")
_BATCH = re.compile(rb"(?m)^(FHS|BHS|BTS|FTS)[^A-Za-z0-9\n][^\n]*$")  # the envelope of a batch
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
        lines = _BATCH.sub(b"", data.replace(b"\r", b"\n"))
        found = [part for part in _MESSAGE.split(lines) if part.startswith(b"MSH")]
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

    messages = read_file(file)
    for note in filter(None, map(_unlike_its_name, messages)):
        print(f"note: {note}", file=sys.stderr)
    receipts = asyncio.run(exchange(messages))
    if any("closed before" in one.answer or "reset" in one.answer for _, one in receipts if not one.answered):
        wanted = "our certificate: --cert-file" if tls else "TLS: --tls or --ca-file"
        print(f"note: perhaps the receiver wants {wanted}", file=sys.stderr)
    if as_json:
        rows = [{"control_id": named, "verdict": one.verdict.value, "answer": one.answer} for named, one in receipts]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        for named, one in receipts:
            print(f"{named or '(no MSH-10)'}  {one.verdict.value}  {one.answer}")
    return 0 if all(one.verdict is Verdict.ACCEPTED for _, one in receipts) else 1


def _unlike_its_name(raw: bytes) -> str:
    """What a receiver will have against the bytes of a message, which is sent all the same."""
    try:
        decode(raw, read_head(raw))
    except MessageUnreadable as error:
        return f"{_control_id(raw) or '(no MSH-10)'}: {error.message}"
    return ""


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
    """Every field of every message, by number and name; of a segment that comes again, with which one it is."""
    found = [list(_fields(lenient_text(raw))) for raw in read_file(file)]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for rows in found:
        table = Table(box=None, pad_edge=False)
        for column in ("field", "name", "value"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[key]) for key in ("field", "name", "value")))
        console().print(table)


def _fields(text: str) -> Iterator[dict[str, str]]:
    for message in read_messages(text):
        seen: Counter[str] = Counter()
        for segment in message.segments:
            seen[segment.name] += 1
            which = f"({seen[segment.name]})" if seen[segment.name] > 1 else ""
            names = field_names(segment.name, message.head.get(12))
            for number in range(1, segment.size + 1):
                if value := segment.raw(number):
                    shown = value if len(value) < 400 else f"{value[:200]} … ({len(value)} characters)"
                    field = f"{segment.name}{which}-{number}"
                    yield {"field": field, "name": names.get(number, ""), "value": shown}


def validate(file: Path, as_json: bool) -> int:
    """Says what is wrong with each message of a file; returns the exit status."""
    judgements = [judge(raw) for raw in read_file(file)]
    if as_json:
        print(json.dumps([vars(item) for item in judgements], indent=2, ensure_ascii=False))
    else:
        for item in judgements:
            said = "; ".join((*(item.problems or ("valid",)), *item.notes))
            print(f"{item.control_id or '(no MSH-10)'}  {item.version}  {said}")
    return 0 if not any(item.problems for item in judgements) else 1


def _control_id(raw: bytes) -> str:
    head = attempt_head(raw)
    return head.control_id if head else ""


def tls_of(use: bool, ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ClientTls | None:
    """What the options of `send` say about TLS; raises ConfigurationError."""
    if key_file and not cert_file:
        raise ConfigurationError("--key-file needs --cert-file")
    if not (use or ca_file or cert_file):
        return None
    return ClientTls(ca_file=ca_file, cert_file=cert_file, key_file=key_file)


def listener_settings(host: str, port: int, charset: str, tls: ServerTls | None) -> MllpListener:
    """A port that anybody may send to: it is for trials. Raises ConfigurationError."""
    everybody = ("0.0.0.0/0", "::/0")
    if not codec_of(charset):
        raise ConfigurationError(f"--charset {charset!r}: write one of HL7 table 0211, such as UNICODE UTF-8")
    return MllpListener(host=host, port=port, charset=charset, tls=tls, peers=everybody)
