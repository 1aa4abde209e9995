"""MLLP framing: any cut, any garbage, the same messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hl7.framing import Decoder, TooLarge, frame

PAYLOAD = st.binary(max_size=40).filter(lambda data: not set(data) & {0x0B, 0x1C})
GARBAGE = st.binary(max_size=10).filter(lambda data: not set(data) & {0x0B, 0x1C})


@given(st.lists(st.tuples(GARBAGE, PAYLOAD, st.booleans()), max_size=6), st.lists(st.integers(1, 20), min_size=1))
def test_messages_survive_any_cut_and_garbage_between_them(
    parts: list[tuple[bytes, bytes, bool]], cuts: list[int]
) -> None:
    """Garbage before VT, a missing CR, several messages in a read, a message over many reads."""
    stream = b"".join(
        garbage + (frame(payload) if with_cr else frame(payload)[:-1]) for garbage, payload, with_cr in parts
    )
    decoder, found, position, turn = Decoder(), [], 0, 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        found += decoder.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert found == [payload for _, payload, _ in parts]
    assert not decoder.inside


def test_second_start_drops_what_was_broken_off() -> None:
    """A sender that reconnects in the middle begins anew."""
    assert Decoder().feed(b"\x0bhalf\x0bwhole\x1c\r") == [b"whole"]


def test_end_outside_a_message_is_nothing() -> None:
    """FS without VT."""
    assert Decoder().feed(b"noise\x1c\r\x0bA\x1c\r") == [b"A"]


def test_message_that_is_too_large_is_dropped_and_told() -> None:
    """In one piece or many, it is read to its end, its beginning is kept, and the next message is whole."""
    assert Decoder(100).feed(b"\x0bMSH" + b"x" * 200 + b"\x1c\r\x0bA\x1c\r") == [
        TooLarge(b"MSH" + b"x" * 200, 203),
        b"A",
    ]
    decoder = Decoder(100)
    decoder.feed(b"\x0b" + b"x" * 50)
    for _ in range(1000):
        assert decoder.feed(b"y" * 1000) == []
    assert decoder.inside
    assert decoder.over
    (found,) = decoder.feed(b"\x1c")
    assert isinstance(found, TooLarge)
    assert found.size == 1_000_050
    assert len(found.beginning) <= 8192
    assert not decoder.over


def test_bytes_outside_a_message_are_counted() -> None:
    """So that a connection that only makes noise can be ended."""
    decoder = Decoder(100)
    decoder.feed(b"y" * 10_000)
    assert decoder.skipped == 10_000
    decoder.feed(b"\x0bA\x1c\r")
    assert decoder.skipped == 0


@pytest.mark.parametrize("byte", [b"\x0b", b"\x1c"])
def test_framing_bytes_inside_are_refused(byte: bytes) -> None:
    """They would end the message early at the receiver."""
    with pytest.raises(ValueError, match="framing"):
        frame(b"a" + byte)
