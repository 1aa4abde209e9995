"""MSH of a message as bytes, and the whole message as text (HL7 v2.5.1 2.14.9). Pure.

Text is split only after it has been decoded: in GB 18030, Big5, Shift-JIS and ISO 2022 a byte of a character may look
like a delimiter. `read_head` reads only MSH, which is enough to acknowledge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.domain.errors import PeerError
from gateway.hl7.charset import SHARES_DELIMITERS, codec_of
from gateway.hl7.segments import Delimiters, Segment

_LINE_ENDS = re.compile(rb"[\r\n]+")
_LONGEST_HEAD = 8192  # bytes of MSH that are looked at
_BOM = b"\xef\xbb\xbf"
_BATCH = (b"FHS", b"BHS", b"FTS", b"BTS")
_UNKNOWN = "?"
_ESCAPE = b"\x1b"  # switches character sets in ISO 2022


class MessageUnreadable(PeerError):
    """The message cannot be read. `code` is of HL7 table 0357."""


@dataclass(frozen=True, slots=True)
class Head:
    """What MSH says."""

    delimiters: Delimiters
    sending_application: str  # MSH-3, raw: components and escapes as they are
    sending_facility: str  # MSH-4, raw
    receiving_application: str  # MSH-5, raw
    receiving_facility: str  # MSH-6, raw
    time: str  # MSH-7
    message_code: str  # MSH-9.1, e.g. ADT
    event: str  # MSH-9.2, e.g. A40
    structure: str  # MSH-9.3, e.g. ADT_A39
    control_id: str  # MSH-10, raw
    processing_id: str  # MSH-11.1
    version: str  # MSH-12.1
    accept_acknowledgement: str  # MSH-15: AL, NE, ER, SU, or empty
    application_acknowledgement: str  # MSH-16
    charset: str  # MSH-18
    codec: str  # of MSH-18; empty where it names none
    written_in: str  # codec by which these values were read

    @property
    def enhanced(self) -> bool:
        """Whether enhanced acknowledgement mode is asked for (2.9.2): MSH-15 or MSH-16 is valued."""
        return bool(self.accept_acknowledgement or self.application_acknowledgement)


def read_head(raw: bytes) -> Head:
    """MSH of a message, of the first one in a batch; raises MessageUnreadable with what to answer."""
    lines = _first_lines(raw)
    line = next((line for line in lines if line[:3] not in _BATCH), b"")
    if not line.startswith(b"MSH"):
        batch = lines[0][:3] in _BATCH
        reason = "the batch does not begin with a message" if batch else "the message does not begin with MSH"
        raise MessageUnreadable(reason, code="200" if batch else "100")
    head = _decoded_head(line)
    if not head.control_id:
        raise MessageUnreadable("MSH-10 is empty", code="101")
    if head.codec == _UNKNOWN:
        raise MessageUnreadable("the character set that MSH-18 names cannot be read", code="103")
    return head


def attempt_head(raw: bytes) -> Head | None:
    """What can be told of MSH, FHS or BHS of a message that cannot be accepted, so that it can be answered; or None."""
    line = _first_lines(raw)[0]
    try:
        return _decoded_head(line) if line[:3] in (b"MSH", b"FHS", b"BHS") else None
    except MessageUnreadable:
        return None


def decode(raw: bytes, head: Head, default: str = "utf-8") -> str:
    """The text of a message by MSH-18; by `default` where it names none. Raises MessageUnreadable.

    A message that names no character set is ASCII by the standard; `default` is for senders that do not say what they
    send.
    """
    codec = head.codec or default
    try:
        return raw.removeprefix(_BOM).decode(codec)
    except UnicodeDecodeError as error:
        named = head.charset or "the character set of senders that name none"
        raise MessageUnreadable(f"byte {error.start} is not {named}, as MSH-18 says", code="102") from None


def lenient_text(raw: bytes) -> str:
    """The text of a message by its MSH-18, whatever is in it: what cannot be decoded is replaced."""
    head = attempt_head(raw)
    codec = head.codec if head and head.codec not in ("", _UNKNOWN) else "utf-8"
    return raw.removeprefix(_BOM).decode(codec, "replace")


def _first_lines(raw: bytes) -> list[bytes]:
    """The first segment, and those behind it that a batch has before its first message."""
    start = raw[:_LONGEST_HEAD].removeprefix(_BOM).lstrip(b"\r\n ")
    return _LINE_ENDS.split(start, maxsplit=4)


def _decoded_head(line: bytes) -> Head:
    """MSH by the character set that it names itself; the names of applications may be written in it."""
    plain = _head(line.decode("latin-1"), "latin-1")
    if line.isascii() and _ESCAPE not in line:
        return plain  # the same in every character set that is read here
    for codec in (plain.codec,) if plain.codec not in ("", _UNKNOWN) else (*SHARES_DELIMITERS, "utf-8"):
        try:
            head = _head(line.decode(codec), codec)
        except UnicodeDecodeError:
            continue
        if head.codec == codec:
            return head
    return plain


def _head(line: str, written_in: str) -> Head:
    marks = _delimiters(line)
    is_message = line.startswith("MSH")
    msh = Segment(f"MSH{line[3:]}", marks)
    codec = codec_of(msh.raw(18) if is_message else "")
    return Head(
        delimiters=marks,
        sending_application=msh.raw(3),
        sending_facility=msh.raw(4),
        receiving_application=msh.raw(5),
        receiving_facility=msh.raw(6),
        time=msh.get(7),
        message_code=msh.get(9),
        event=msh.get(9, 2),
        structure=msh.get(9, 3),
        control_id=msh.raw(10 if is_message else 11).strip(),  # FHS-11, BHS-11
        processing_id=msh.get(11),
        version=msh.get(12),
        accept_acknowledgement=msh.get(15).upper() if is_message else "",
        application_acknowledgement=msh.get(16).upper() if is_message else "",
        charset=msh.raw(18) if is_message else "",
        codec=_UNKNOWN if codec is None else codec,
        written_in=written_in,
    )


def _delimiters(line: str) -> Delimiters:
    """MSH-1 and MSH-2, where they can be told apart; the usual ones for those that old messages leave out."""
    field = line[3:4]
    signs = line[4:].split(field, 1)[0] if field else ""
    found = (field, *signs[:4], *"^~\\&"[len(signs) :])
    # MSH-2 has 4 signs, from v2.7 on a fifth for truncation.
    usable = 1 <= len(signs) <= 5 and all(sign.isascii() and sign.isprintable() for sign in found)
    if not usable or len(set(found)) != len(found) or any(sign.isalnum() or sign.isspace() for sign in found):
        raise MessageUnreadable("MSH-1 and MSH-2 are not five different delimiters", code="100")
    return Delimiters(*found)
