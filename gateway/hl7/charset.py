"""Character sets of HL7 v2 (table 0211) and what they are called in the field. Pure."""

from __future__ import annotations

import re

CODECS = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "ISO IR14": "iso2022_jp_ext",
    "ISO IR87": "iso2022_jp_ext",
    "ISO IR159": "iso2022_jp_ext",
    "SHIFT_JIS": "cp932",
    "KS X 1001": "cp949",
    "BIG-5": "cp950",
    "GB 18030-2000": "gb18030",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
}
"""MSH-18 -> Python codec: table 0211, and Shift-JIS, which Japan uses though the table does not have it.

Where Microsoft's code page is a superset of the standard's set, it is taken: that is what senders really have.
UTF-16 and UTF-32 are not here: their bytes would end a frame of MLLP."""

_ALIASES = {
    **dict.fromkeys(("USASCII", "ISOIR6", "20127"), "ascii"),
    **dict.fromkeys(("UTF8", "UNICODEUTF8", "ISOIR192", "65001"), "utf-8"),
    **dict.fromkeys(("GB18030", "GB180302000", "GB180302005", "GB180302022", "GBK", "GB2312", "CP936"), "gb18030"),
    **dict.fromkeys(("BIG5", "CP950"), "cp950"),
    **dict.fromkeys(("SHIFTJIS", "SJIS", "CP932", "MS932", "WINDOWS31J"), "cp932"),
    **dict.fromkeys(("ISO2022JP", "JIS", "ISOIR13"), "iso2022_jp_ext"),
    **dict.fromkeys(("EUCKR", "KSC5601", "KSX1001", "CP949", "ISOIR149"), "cp949"),
    **{f"ISO8859{part}": f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)},
    **{f"8859{part}": f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)},
    **{f"ISOIR{number}": f"iso8859-{part}" for number, part in
       ((100, 1), (101, 2), (109, 3), (110, 4), (144, 5), (127, 6), (126, 7), (138, 8), (148, 9))},
    **{f"{prefix}125{page}": f"cp125{page}" for prefix in ("CP", "WINDOWS") for page in range(9)},
}  # fmt: skip

SHARES_DELIMITERS = ("gb18030", "cp950", "cp932", "iso2022_jp_ext", "cp949")
"""Codecs with characters whose bytes include `|`, `^`, `~`, `\\` or `&`: 葉 in GB 18030 is C8 7E, 許 in Big5 B3 5C."""


def codec_of(field: str) -> str | None:
    """The codec that a field MSH-18 names, empty for none named, or None for one that cannot be read.

    MSH-18 may repeat: the first is the default, the others are switched to by escape sequences (ISO 2022), so that
    `~ISO IR87` is ASCII with JIS X 0208; the codec of the last covers them.
    """
    names = [name for name in (part.strip() for part in re.split(r"[~\s]*~[~\s]*", field.strip())) if name]
    found = ""
    for name in names:
        compact = re.sub(r"[^A-Z0-9]", "", name.upper())
        known = CODECS.get(name.upper()) or _ALIASES.get(compact) or _COMPACT.get(compact)
        if known is None:
            return None
        found = known if known != "ascii" or not found else found
    return found


_COMPACT = {re.sub(r"[^A-Z0-9]", "", name): codec for name, codec in CODECS.items()}
