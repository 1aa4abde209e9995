"""A refusal in codes: why images were not processed, as reports to archive and EHR say it. Pure.

The standard has words for the outcome (PS3.16 CID 6042) and for the kind of reason (CID 9300, CID 7010); which figure or
rule it was is said in a code of our own beside them.
"""

from __future__ import annotations

from gateway.domain.job import OnRefusal
from gateway.domain.messages import Code

SUMMARY = Code(value="111065", scheme="DCM", meaning="Summary of Analyses")
NOT_ATTEMPTED = Code(value="111225", scheme="DCM", meaning="Not Attempted")  # CID 6042
REASON = Code(value="NOT-PROCESSED", scheme="99HILUM", meaning="Reason why images were not processed")

_FORMAT = Code(value="110521", scheme="DCM", meaning="Objects incorrectly formatted")
_TYPE = Code(value="110522", scheme="DCM", meaning="Object Types not supported")
_INCOMPLETE = Code(value="110523", scheme="DCM", meaning="Object Set incomplete")
_RESOURCE = Code(value="110527", scheme="DCM", meaning="Resource inadequate")
_QUALITY = Code(value="113001", scheme="DCM", meaning="Rejected for Quality Reasons")
_UNSPECIFIED = Code(value="110513", scheme="DCM", meaning="Discontinued for unspecified reason")

_KINDS = {
    _TYPE: ("modality", "body_part", "sop_class", "multiframe", "photometric", "spacing", "extent"),
    _INCOMPLETE: ("gap", "slices"),
    _FORMAT: ("uneven", "duplicate_position", "duplicate_instance", "sheared", "orientation", "size", "geometry",
              "series", "frame_of_reference", "no_frame", "no_images", "undecodable"),
    _RESOURCE: ("too_large",),
    _QUALITY: ("blank",),
}  # fmt: skip
_KIND_OF = {code: kind for kind, codes in _KINDS.items() for code in codes}

_OURS_ALONE = frozenset({"mixed_patients", "study", "missing", "changed"})
"""Doubt about whose images they are, or a fault of the spool: a person here has to look before anybody is told."""

_LONGEST = 16  # characters of a code value (SH)


def reasons(code: str) -> tuple[Code, ...]:
    """The kind of reason in the standard's words, then the reason itself; nothing where nobody outside is to be told."""
    if code in _OURS_ALONE:
        return ()
    kind = _QUALITY if code.startswith("envelope_") else _KIND_OF.get(code, _UNSPECIFIED)
    return (kind, Code(value=_short(code), scheme="99HILUM", meaning=code.replace("_", " ")[:64]))


def to_tell(on_refusal: OnRefusal, code: str) -> tuple[Code, ...]:
    """What archive and EHR are told of a refusal; nothing where they are not told.

    Images that make no volume are the business of whoever sent them; what the envelope or the model itself says of images
    that do is an answer to whoever asked.
    """
    broken = code in _KIND_OF
    if on_refusal is OnRefusal.HOLD or (broken and on_refusal is OnRefusal.ENVELOPE):
        return ()
    return reasons(code)


def sentence(reason: str) -> str:
    """The reason as every report words it."""
    text = reason.removeprefix("not processed: ").rstrip(".")
    return f"Not processed: {text}."


def _short(code: str) -> str:
    words = code.upper().replace("ENVELOPE_", "ENV_").replace("DUPLICATE_", "DUP_").replace("_REFERENCE", "_REF")
    return words.replace("_", "-")[:_LONGEST].rstrip("-")
