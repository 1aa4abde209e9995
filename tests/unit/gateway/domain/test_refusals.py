"""Refusals in codes."""

from __future__ import annotations

import pytest

from gateway.domain import refusals
from gateway.domain.job import OnRefusal


@pytest.mark.parametrize(
    ("code", "kind", "own"),
    [
        ("envelope_likeness", "113001", "ENV-LIKENESS"),
        ("gap", "110523", "GAP"),
        ("modality", "110522", "MODALITY"),
        ("frame_of_reference", "110521", "FRAME-OF-REF"),
        ("too_large", "110527", "TOO-LARGE"),
        ("metal_in_the_field_of_view", "110513", "METAL-IN-THE-FIE"),
    ],
)
def test_a_refusal_is_the_standards_reason_and_our_own(code: str, kind: str, own: str) -> None:
    """The kind by PS3.16, the reason itself within the length of a code value."""
    first, second = refusals.reasons(code)
    assert (first.value, first.scheme) == (kind, "DCM")
    assert (second.value, second.scheme) == (own, "99HILUM")


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (OnRefusal.REPORT, ["gap", "envelope_size", "metal"]),
        (OnRefusal.ENVELOPE, ["envelope_size", "metal"]),
        (OnRefusal.HOLD, []),
    ],
)
def test_who_is_told_of_which_refusals(wish: OnRefusal, told: list[str]) -> None:
    """A doubt about whose images they are, or a fault of our own spool, is never told."""
    codes = ["gap", "envelope_size", "metal", "mixed_patients", "changed"]
    assert [code for code in codes if refusals.to_tell(wish, code)] == told
