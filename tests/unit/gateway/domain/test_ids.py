"""Identifiers: what is one, what is none, and digests that nobody can confuse."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidIdentifier
from gateway.domain.ids import AETitle, InstanceUID, StudyUID, Uid, derived_uid, digest

TEXTS = st.lists(st.text(max_size=5), max_size=4)


@pytest.mark.parametrize(
    ("written", "uid"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2.3\0", "1.2.3"),
        ("1.2.3 ", "1.2.3"),
        ("1.02.3", "1.02.3"),
        ("9" * 64, "9" * 64),
        ("0", "0"),
    ],
)
def test_uids(written: str, uid: str) -> None:
    """Padding is taken off, leading zeros are left as they are."""
    assert InstanceUID(written) == uid


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "1.",
        ".1",
        "1..2",
        "1.2.3\n",
        "1.2.a",
        "../1",
        "1/2",
        "9" * 65,
        "1.2.3\0.4",
        "١.٢",
        " 1.2",
        "-1.2",
        "1.2\\1.3",
    ],
)
def test_what_is_no_uid(written: str) -> None:
    """Anything but digits and dots raises, and the error does not quote what may be anything."""
    with pytest.raises(InvalidIdentifier) as raised:
        StudyUID(written)
    assert "StudyUID is not a valid UID" in raised.value.message
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("written", ["CT1", " CT1 ", "CT 1", "CT1\0", "a" * 16, "<script>", "'; DROP"])
def test_ae_titles(written: str) -> None:
    """Outer spaces and padding are not significant, inner ones are."""
    assert AETitle(written) == written.strip(" \0")


@pytest.mark.parametrize("written", ["", "  ", "a" * 17, "A\\B", "A\nB", "CT\x7f", "ÄT", "A\0B", "A\tB"])
def test_what_is_no_ae_title(written: str) -> None:
    """Empty, too long, a backslash, a control character or another repertoire raises."""
    with pytest.raises(InvalidIdentifier):
        AETitle(written)


@given(st.text(alphabet=string.digits + ". \0a/", max_size=70))
def test_a_uid_is_safe_or_refused(text: str) -> None:
    """Whatever comes through is digits and dots and at most 64 characters, and is the same when checked again."""
    try:
        uid = Uid(text)
    except InvalidIdentifier:
        return
    assert set(uid) <= set(string.digits + ".")
    assert 0 < len(uid) <= 64
    assert Uid(uid) == uid


@given(TEXTS, TEXTS)
def test_digest_has_no_ambiguity(first: list[str], second: list[str]) -> None:
    """Two lists of parts have one digest only if they are the same list."""
    assert (digest(*first) == digest(*second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"), [(["ab", "c"], ["a", "bc"]), (["a"], ["a", ""]), ([], [""]), (["a b"], ["a", "b"])]
)
def test_digest_knows_where_parts_end(first: list[str], second: list[str]) -> None:
    """Moving a boundary changes the digest."""
    assert digest(*first) != digest(*second)


def test_digest_stays_the_same_for_ever() -> None:
    """Result UIDs hang on it: another digest after an upgrade would be a second result for the same input."""
    assert digest("job", "1") == "96c3fbca86c1d8174d2737246cd36c70c98cc3058e069da0c758e9e28b9377b2"
    assert derived_uid("job", "1") == "2.25.200401804185756351234047859555321474160"


@given(TEXTS)
def test_derived_uids_are_uids(parts: list[str]) -> None:
    """They stand under 2.25, have no leading zero and fit into 64 characters (PS3.5 annex B.2)."""
    uid = derived_uid(*parts)
    number = uid.removeprefix("2.25.")
    assert str(int(number)) == number
    assert int(number) < 1 << 128
    assert len(uid) <= 64
