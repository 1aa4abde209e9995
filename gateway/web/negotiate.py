"""In what form a client gets instances and frames (PS3.18 8.7.3): a pure choice from Accept and what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.web.accept import MediaRange

EXPLICIT = "1.2.840.10008.1.2.1"
OCTETS, DICOM = "application/octet-stream", "application/dicom"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE_LITTLE = frozenset({"1.2.840.10008.1.2", EXPLICIT, "1.2.840.10008.1.2.1.99"})

MEDIA_TYPE = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
}
"""Transfer syntax to the media type of one of its frames (table 8.7.3-2 and following)."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to give something out."""

    multipart: bool
    media_type: str  # of the parts, or of the one thing
    transfer_syntax: str
    decoded: bool  # not as stored: the workers' side has to do it

    @property
    def content_type(self) -> str:
        """Of the parts, or of the one thing."""
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax}"


def instance_form(accept: Sequence[MediaRange], stored: str, *, single: bool) -> Form | None:
    """How instances stored in one transfer syntax are given out; a single one may come without multipart."""
    for wanted in accept:
        bare = single and wanted.kind in (DICOM, "application/*")
        if not bare and not wanted.covers_part(DICOM):
            continue
        syntax = _instance_syntax(wanted, stored)
        if syntax is not None:
            return Form(multipart=not bare, media_type=DICOM, transfer_syntax=syntax, decoded=syntax != stored)
    return None


def frame_form(accept: Sequence[MediaRange], stored: str, *, single: bool) -> Form | None:
    """How frames stored in one transfer syntax are given out; a single one may come without multipart."""
    for wanted in accept:
        for multipart in (True, False) if single else (True,):
            form = _frame_form(wanted, stored, multipart)
            if form is not None:
                return form
    return None


def _instance_syntax(wanted: MediaRange, stored: str) -> str | None:
    asked = wanted.transfer_syntax
    if asked in ("*", stored) or (not asked and wanted.kind == "*/*"):
        return stored
    return EXPLICIT if asked in ("", EXPLICIT) else None


def _frame_form(wanted: MediaRange, stored: str, multipart: bool) -> Form | None:
    def covers(kind: str) -> bool:
        return wanted.covers_part(kind) if multipart else wanted.kind != "*/*" and wanted.covers(kind)

    native, asked = stored in _NATIVE_LITTLE, wanted.transfer_syntax
    if native or stored == _BIG_ENDIAN:
        fits = covers(OCTETS) and asked in ("", "*", EXPLICIT, *((stored,) if native else ()))
        form = Form(multipart=multipart, media_type=OCTETS, transfer_syntax=EXPLICIT, decoded=not native)
        return form if fits else None
    image = MEDIA_TYPE.get(stored, OCTETS)
    if image != OCTETS and covers(image) and asked in ("", "*", stored):
        return Form(multipart=multipart, media_type=image, transfer_syntax=stored, decoded=False)
    if covers(OCTETS) and asked in ("*", stored):
        return Form(multipart=multipart, media_type=OCTETS, transfer_syntax=stored, decoded=False)
    if covers(OCTETS) and asked in ("", EXPLICIT):
        return Form(multipart=multipart, media_type=OCTETS, transfer_syntax=EXPLICIT, decoded=True)
    return None
