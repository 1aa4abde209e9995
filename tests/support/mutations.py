"""Conversations on the DICOM port, damaged with a purpose: each kind of damage with the answers that are right for it."""

from __future__ import annotations

import itertools
import random
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from pydicom.uid import ExplicitVRLittleEndian

from tests.support.received import SERIES, dataset, encode
from tests.support.wire import MR, association_request, p_data, store_request

REQUEST = association_request("HILUM", MR, str(ExplicitVRLittleEndian))
RELEASE = struct.pack(">BxI4x", 5, 4)
COMMAND, DATASET = store_request(f"{SERIES}.1"), encode(dataset())
WHOLE = [REQUEST, p_data(COMMAND, control=3), p_data(DATASET, control=2), RELEASE]

GOOD = ("accepted", "0000", "released")
_INVALID, _UNEXPECTED, _UNKNOWN = "aborted 6", "aborted 2", "aborted 1"
_CUT = ""  # nothing more is said
_FREE = {*GOOD, _CUT, _INVALID, _UNEXPECTED, _UNKNOWN, "0111", "0122", "0211", "a900", "c000"}
_REJECTIONS = {f"rejected {result}" for result in ("0112", "0113", "0117", "0122", "0231")}

Damage = Callable[[random.Random], Iterable[bytes]]


@dataclass(frozen=True)
class Kind:
    """One kind of damage: what is said, and how the answer may end."""

    say: Damage
    ends: set[str] | tuple[str, ...]  # the whole answer where it is a tuple, its last word where it is a set


def answer(port: int, said: bytes, patience: float = 20.0) -> list[str]:
    """Says it all and then no more; returns what is answered until the node hangs up. Fails where it does not."""
    heard = bytearray()
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.settimeout(patience)
        with suppress(ConnectionError):
            raw.sendall(said)
            raw.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while more := raw.recv(65536):
                heard += more
    return _words(bytes(heard))


def _words(heard: bytes) -> list[str]:
    words, at = [], 0
    while at < len(heard):
        kind, length = struct.unpack_from(">BxI", heard, at)
        body = heard[at + 6 : at + 6 + length]
        assert len(body) == length, "half a PDU"
        words.append(_word(kind, body))
        at += 6 + length
    return words


def _word(kind: int, body: bytes) -> str:
    if kind == 4:
        place = body.index(b"\0\0\0\x09\2\0\0\0")
        return f"{struct.unpack_from('<H', body, place + 8)[0]:04x}"
    if kind == 3:
        return f"rejected {body.hex()[1::2]}"
    return {2: "accepted", 6: "released", 7: f"aborted {body[3]}"}[kind]


def _refragmented(dice: random.Random) -> Iterable[bytes]:
    yield REQUEST
    pieces = [*_cut(dice, COMMAND, 1), *_cut(dice, DATASET, 0)]
    while pieces:
        some, pieces = pieces[: (count := dice.randrange(1, 6))], pieces[count:]
        body = b"".join(struct.pack(">IBB", len(data) + 2, 1, control) + data for data, control in some)
        yield struct.pack(">BBI", 4, dice.randrange(256), len(body)) + body
    yield RELEASE


def _cut(dice: random.Random, data: bytes, control: int) -> list[tuple[bytes, int]]:
    places = sorted({0, len(data), *(dice.randrange(len(data)) for _ in range(dice.randrange(20)))})
    pairs = list(itertools.pairwise(places))
    return [(data[start:end], control | (2 if end == len(data) else 0)) for start, end in pairs]


def _unknown_items(dice: random.Random) -> Iterable[bytes]:
    """Items, and sub-items of user information, that nobody knows: they are to be ignored (PS3.8 9.3.1)."""
    value = dice.randbytes(dice.randrange(40))
    item = struct.pack(">BBH", dice.choice([0x00, 0x5A, 0x60, 0xFE]), 0, len(value)) + value
    at = REQUEST.index(b"\x50\0")
    length = struct.unpack_from(">H", REQUEST, at + 2)[0] + len(item)
    user = REQUEST[at : at + 2] + struct.pack(">H", length) + REQUEST[at + 4 :] + item
    body = REQUEST[6:at] + dice.choice([b"", item]) + user + dice.choice([b"", item])
    return [struct.pack(">BxI", 1, len(body)) + body, *WHOLE[1:]]


def _replace(dice: random.Random, change: Callable[[bytes], bytes], *places: int) -> Iterable[bytes]:
    place = dice.choice(places)
    return [change(item) if number == place else item for number, item in enumerate(WHOLE)]


def _insert(dice: random.Random, item: bytes, *places: int) -> Iterable[bytes]:
    place = dice.choice(places)
    return [*WHOLE[:place], item, *WHOLE[place:]]


def _lying_fragment(dice: random.Random) -> Iterable[bytes]:
    lie = dice.choice([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, dice.randrange(2000, 1 << 32)])
    return _replace(dice, lambda item: item[:6] + struct.pack(">I", lie) + item[10:], 1, 2)


def _lying_pdu(dice: random.Random) -> Iterable[bytes]:
    lie = dice.choice([0, 5, 131073, 0xFFFFFFFF, dice.randrange(1 << 20, 1 << 32)])
    return _replace(dice, lambda item: item[:2] + struct.pack(">I", lie) + item[6:], 1, 2)


def _elements(dice: random.Random) -> Iterable[bytes]:
    """Elements of the command set left out, doubled, in another order, of another length or value."""
    found, at = [], 12
    while at < len(COMMAND):
        size = struct.unpack_from("<I", COMMAND, at + 4)[0]
        found.append(COMMAND[at : at + 8 + size])
        at += 8 + size
    one = dice.randrange(len(found))
    how = dice.randrange(5)
    if how == 0:
        del found[one]
    elif how == 1:
        found.insert(dice.randrange(len(found)), found[one])
    elif how == 2:
        dice.shuffle(found)
    elif how == 3:
        found[one] = found[one][:4] + struct.pack("<I", dice.randrange(1 << 32)) + found[one][8:]
    else:
        found[one] = found[one][:8] + dice.randbytes(len(found[one]) - 8)
    body = b"".join(found)
    return [REQUEST, p_data(struct.pack("<HHII", 0, 0, 4, len(body)) + body, control=3), *WHOLE[2:]]


def _request(dice: random.Random) -> Iterable[bytes]:
    """An A-ASSOCIATE-RQ whose items lie, or are too many, or too long; its own length is right."""
    body = bytearray(REQUEST[6:])
    how = dice.randrange(4)
    if how == 0:
        for _ in range(dice.choice([1, 2, 5])):
            body[dice.randrange(len(body))] = dice.randrange(256)
    elif how == 1:
        del body[dice.randrange(len(body)) :]
    elif how == 2:
        start = dice.randrange(68, len(body))
        body[start:start] = body[68:] * dice.choice([1, 3, 200])
    else:
        start = dice.randrange(68, len(body) - 1)
        body[start : start + 2] = struct.pack(">H", dice.choice([0, 1, 65535, dice.randrange(65536)]))
    return [struct.pack(">BxI", 1, len(body)) + bytes(body), *WHOLE[1:]]


def _noise(dice: random.Random) -> Iterable[bytes]:
    data = bytearray(b"".join(WHOLE))
    for _ in range(dice.choice([1, 1, 2, 8, 40])):
        data[dice.randrange(len(data))] = dice.choice([0, 255, dice.randrange(256)])
    if dice.random() < 0.3:
        start = dice.randrange(len(data))
        del data[start : start + dice.randrange(1, 40)]
    if dice.random() < 0.2:
        start = dice.randrange(len(data))
        data[start:start] = data[start : start + 50]
    return [bytes(data)]


def _shuffled(dice: random.Random) -> Iterable[bytes]:
    pdus = [dice.choice(WHOLE[1:]) for _ in range(dice.randrange(1, 7))]
    return [REQUEST, *pdus]


KINDS: dict[str, Kind] = {
    "refragmented": Kind(_refragmented, GOOD),
    "items that nobody knows": Kind(_unknown_items, GOOD),
    "two instances without a pause": Kind(lambda _: [*WHOLE[:3], *WHOLE[1:]], ("accepted", "0000", "0000", "released")),
    "a PDU of no type": Kind(
        lambda d: _insert(d, bytes([d.choice([0, *range(8, 256)])]) + RELEASE[1:], 1, 2, 3), {_UNKNOWN}
    ),
    "a second request": Kind(lambda d: _insert(d, REQUEST, 1, 2, 3), {_UNEXPECTED}),
    "an answer to nothing": Kind(
        lambda d: _insert(d, bytes([d.choice([2, 3, 6])]) + RELEASE[1:], 1, 2, 3), {_UNEXPECTED}
    ),
    "released in the middle": Kind(lambda _: [*WHOLE[:2], RELEASE, *WHOLE[2:]], ("accepted", _UNEXPECTED)),
    "aborted anywhere": Kind(lambda d: _insert(d, b"\7" + RELEASE[1:], 1, 2), ("accepted",)),
    "a PDU whose length lies": Kind(_lying_pdu, {_INVALID}),
    "a fragment whose length lies": Kind(_lying_fragment, {_INVALID}),
    "another context": Kind(
        lambda d: _replace(d, lambda i: i[:10] + bytes([d.choice([0, 2, 3, 255])]) + i[11:], 1, 2), {_INVALID}
    ),
    "a command that is a dataset": Kind(
        lambda d: _replace(d, lambda i: i[:11] + bytes([i[11] ^ 1]) + i[12:], 1, 2), {_INVALID}
    ),
    "a fragment that is not the last": Kind(
        lambda d: _replace(d, lambda i: i[:11] + bytes([i[11] ^ 2]) + i[12:], 1), {_INVALID}
    ),
    "cut anywhere": Kind(lambda d: [(w := b"".join(WHOLE))[: d.randrange(len(w) - 11)]], {_CUT, "accepted", "0000"}),
    "elements of the command": Kind(_elements, _FREE),
    "items of the request": Kind(_request, _FREE | _REJECTIONS),
    "in any order": Kind(_shuffled, _FREE),
    "noise": Kind(_noise, _FREE | _REJECTIONS),
}
