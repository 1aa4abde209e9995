"""What MSH-18 names, in the standard's words and in those of the field."""

from __future__ import annotations

import pytest

from gateway.hl7.charset import CODECS, codec_of


@pytest.mark.parametrize(
    ("field", "codec"),
    [
        *CODECS.items(),
        ("", ""),
        ("  unicode utf-8 ", "utf-8"),
        ("UTF-8", "utf-8"),
        ("utf8", "utf-8"),
        ("GB18030", "gb18030"),
        ("GBK", "gb18030"),
        ("Big5", "cp950"),
        ("SJIS", "cp932"),
        ("ISO-8859-1", "iso8859-1"),
        ("ISO_IR 100", "iso8859-1"),
        ("WINDOWS-1252", "cp1252"),
        ("~ISO IR87", "iso2022_jp_ext"),
        ("ASCII~ISO IR87~ISO IR159", "iso2022_jp_ext"),
        ("UNICODE UTF-16", None),
        ("KLINGON", None),
        ("ASCII~KLINGON", None),
    ],
)
def test_names(field: str, codec: str | None) -> None:
    """Table 0211, its repetitions, and names that senders use instead."""
    assert codec_of(field) == codec


@pytest.mark.parametrize("codec", sorted(set(CODECS.values())))
def test_every_codec_keeps_ascii_and_frames(codec: str) -> None:
    """MSH can be read before its character set is known, and no text of printable characters ends a frame."""
    printable = "".join(chr(number) for number in range(0x20, 0x7F))
    assert printable.encode(codec).decode("latin-1") == printable
    for sign in "葉許表酥ñЖ한あ":
        written = sign.encode(codec, "ignore")
        assert not set(written) & {0x0B, 0x1C, 0x0D}
