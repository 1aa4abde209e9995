"""What the status of a C-STORE response, or a failure reason of STOW-RS, means for an object."""

from __future__ import annotations

from gateway.domain.job import Receipt, Verdict

DUPLICATES = frozenset({0x0111, 0xB00E})
"""The destination says that it has an instance with this UID: PS3.7 C.5.7, and 45070 of a widespread DICOMweb service."""

_WARNINGS = {
    0x0107: "attribute list error",
    0x0116: "attribute value out of range",
    0xB000: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class",
}
_UNSUPPORTED = {0x0118: "no such SOP class", 0x0122: "SOP class not supported"}
_PERMANENT = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0115: "invalid argument value",
    0x0117: "invalid SOP instance",
    0x0119: "class-instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
}


def receipt(status: int, comment: str = "") -> Receipt:
    """What to make of a status (PS3.7 annex C, PS3.4 table B.2-1, PS3.18 table 10.5.3-1).

    Success and warnings are accepted; out of resources (0xA7xx) comes again; data the destination does not take
    (0xA8xx, 0xA9xx, 0xCxxx, and the codes of PS3.7 annex C that blame the request) is rejected, and where it is the class
    that it does not know, another form may do. Anything else, such as 0x0110 processing failure, says nothing about the
    object, so it is tried again. A duplicate is tried again too, unless `judge_duplicate` knows better. ``comment`` is
    the Error Comment (0000,0902) of the peer.
    """
    verdict, meaning = _meaning(status)
    note = "".join(sign for sign in comment if sign.isprintable())[:64].strip()
    return Receipt(verdict=verdict, answer=f"0x{status:04X} {meaning}{': ' if note else ''}{note}")


def is_duplicate(receipt: Receipt) -> bool:
    """Whether the destination said that it has an instance with this UID already."""
    return any(receipt.answer.startswith(f"0x{code:04X}") for code in DUPLICATES)


def judge_duplicate(said: Receipt, finding: Receipt) -> Receipt:
    """What "already there" is worth, now that somebody has looked: it counts only for what compares equal."""
    if finding.verdict is Verdict.ACCEPTED:
        return Receipt(verdict=Verdict.ACCEPTED, answer=f"{said.answer}, {finding.answer}")
    permanent = finding.verdict in (Verdict.REJECTED, Verdict.UNSUPPORTED)
    verdict = Verdict.REJECTED if permanent else Verdict.RETRY
    return Receipt(verdict=verdict, answer=f"{said.answer}, but {finding.answer}")


def _meaning(status: int) -> tuple[Verdict, str]:
    if status == 0:
        return Verdict.ACCEPTED, "stored"
    if status in DUPLICATES:
        return Verdict.RETRY, "duplicate SOP instance"
    if status in _UNSUPPORTED:
        return Verdict.UNSUPPORTED, _UNSUPPORTED[status]
    if status in _PERMANENT:
        return Verdict.REJECTED, _PERMANENT[status]
    if status in _WARNINGS or status >> 12 == 0xB:
        return Verdict.ACCEPTED, f"stored with warning: {_WARNINGS.get(status, 'unknown warning')}"
    return _failure_class(status)


def _failure_class(status: int) -> tuple[Verdict, str]:
    if status >> 8 == 0xA7:
        return Verdict.RETRY, "out of resources"
    if status >> 8 in (0xA8, 0xA9):
        return Verdict.REJECTED, "data set does not match SOP class"
    if status >> 12 == 0xC:
        return Verdict.REJECTED, "cannot understand"
    return Verdict.RETRY, "processing failure" if status == 0x0110 else "unknown status"
