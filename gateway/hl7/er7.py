"""HL7 v2 text: escaping, and the data types an ORU needs (HL7 v2.5.1 chapters 2 and 2A). Pure.

Every value goes through `text` or `number`; what they return holds no delimiter and no control character, so a value
can neither end its field nor start another segment, and a framed message holds no framing byte of MLLP.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, tzinfo
from decimal import Decimal

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_DATE = re.compile(r"[0-9]{8}|[0-9]{6}|[0-9]{4}")
_TIME = re.compile(r"([0-9]{6}|[0-9]{4}|[0-9]{2})(\.[0-9]{1,6})?")
_SIGNIFICANT = 6
_MOST_PLACES = 10  # NM has 16 characters


def text(value: str) -> str:
    """A value with delimiters escaped (2.7); runs of control characters and line ends become one space."""
    plain = _NOT_TEXT.sub(" ", value).strip()
    return "".join(_ESCAPES.get(sign, sign) for sign in plain)


def number(value: float) -> str:
    """NM (2.A.47): digits, sign and point only, never an exponent; all digits before the point, six significant ones,
    at most ten after the point.

    Raises ValueError for a value that is not finite.
    """
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    exact = Decimal(repr(float(value)))
    places = min(max(0, _SIGNIFICANT - 1 - (exact.adjusted() if exact else 0)), _MOST_PLACES)
    plain = f"{round(exact, places):f}" if places else f"{round(exact)}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


def join(delimiter: str, *parts: str) -> str:
    """Parts with the delimiter between them, without empty parts at the end."""
    return delimiter.join(parts).rstrip(delimiter)


def segment(name: str, fields: dict[int, str]) -> str:
    """A segment from its fields by number; MSH-1 and MSH-2 are counted as in the standard."""
    last = max(fields)
    first = 2 if name == "MSH" else 1
    values = "|".join(fields.get(number, "") for number in range(first, last + 1))
    return f"{name}|{values}".rstrip("|")


def coded(value: str, meaning: str, scheme: str, *alternate: str) -> str:
    """CE (2.A.8): identifier, text, coding system, and the same three once more for an alternate."""
    return join("^", *(text(part) for part in (value, meaning, scheme, *alternate)))


def person(name: str) -> str:
    """XPN repetitions (2.A.88) of a DICOM person name (PS3.5 6.2.1): one for each group, XPN-8 `A`, `I` or `P`.

    DICOM has family, given, middle, prefix, suffix; HL7 has the suffix before the prefix.
    """
    groups = zip(name.split("=")[:3], "AIP", strict=False)
    return "~".join(_xpn(group, representation) for group, representation in groups if group.strip("^ "))


def date(value: str) -> str:
    """DT (2.A.21) of a DICOM date; empty where it is none."""
    compact = value.strip().replace(".", "")  # ACR-NEMA wrote 1993.08.22
    if not _DATE.fullmatch(compact):
        return ""
    month, day = int(compact[4:6] or 1), int(compact[6:8] or 1)
    return compact if 1 <= month <= 12 and 1 <= day <= 31 else ""


def moment(day: str, time: str) -> str:
    """TS (2.A.77) of a DICOM date and time, without an offset; only the date where the time is none."""
    date_part, time_part = date(day), time.strip().replace(":", "")
    if len(date_part) < 8 or not _TIME.fullmatch(time_part):
        return date_part
    whole, _, fraction = time_part.partition(".")
    hour, minute, second = (int(whole[at : at + 2] or 0) for at in (0, 2, 4))
    if hour > 23 or minute > 59 or second > 59:
        return date_part
    return date_part + whole.ljust(4, "0") + (f".{fraction[:4]}" if fraction and len(whole) == 6 else "")


def instant(seconds: float, zone: tzinfo | None) -> str:
    """TS of a point in time (seconds since the epoch) with its offset, in a zone or in this machine's own."""
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone).strftime("%Y%m%d%H%M%S%z")


def _xpn(group: str, representation: str) -> str:
    family, given, middle, prefix, suffix = (text(part) for part in (group.split("^") + [""] * 5)[:5])
    return f"{family}^{given}^{middle}^{suffix}^{prefix}^^L^{representation}"
