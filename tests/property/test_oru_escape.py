"""Whatever a text holds, an ORU keeps its structure and gives the text back."""

from __future__ import annotations

from dataclasses import replace

import hl7
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.hl7.er7 import number, text
from gateway.report.oru import build
from gateway.report.settings import Hl7Destination
from tests.support.outcomes import PATIENT, outcome, report, source

HOSTILE = st.text(
    st.one_of(st.sampled_from("|^~\\&\r\n\x0b\x1c\x00\x1b.EFSTRX0D"), st.characters(exclude_categories=())), max_size=40
)
PROFILE = Hl7Destination(kind="hl7", host="127.0.0.1", port=2575)


@settings(max_examples=25, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
@example("=", "", "")  # an empty name group is nothing that was left out
def test_text_never_leaves_its_field(name: str, description: str, flag: str) -> None:
    """Segments, their number and the ids stay as without the hostile text."""
    header = source(replace(PATIENT, name=f"Doe{name}"), study_description=description)
    content = report(outcome(flags=(f"flag {flag}",)), header)
    raw = build(content, PROFILE)
    message = hl7.parse(raw.decode())
    assert [str(segment[0]) for segment in message] == ["MSH", "PID", "ORC", "OBR"] + ["OBX"] * 9
    assert str(message.segment("PID")[3]) == "P1^^^HOSPITAL^PI"
    assert len(message.segment("OBR")) == 26
    assert {str(segment[11]) for segment in message.segments("OBX")} == {"P"}
    assert not set(raw) & {0x0A, 0x0B, 0x1C, 0x00}


@given(HOSTILE)
def test_escapes_are_undone_by_another_library(value: str) -> None:
    """python-hl7 reads what was meant, with control characters as spaces."""
    escaped = text(value)
    assert not set(escaped) & set("|^~&\r\n\x0b\x1c")
    message = hl7.parse("MSH|^~\\&|\r")
    assert text(message.unescape(escaped)) == escaped


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_numbers_are_plain_and_close(value: float) -> None:
    """No exponent, room in NM, and within half a unit of the sixth significant digit or the tenth place."""
    written = number(value)
    assert set(written) <= set("-.0123456789")
    assert len(written) <= 16
    assert abs(float(written) - value) <= max(abs(value) * 5.1e-6, 0.51e-10)
