"""Identifiers, each its own type and checked once, where it enters: text from the wire never becomes a path or a query."""

from __future__ import annotations

import hashlib
import re
from typing import NewType, Self

from gateway.domain.errors import InvalidIdentifier

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
# PS3.5 6.2 AE: default repertoire without backslash and control characters, 16 characters at most.
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


class Uid(str):
    """A DICOM unique identifier (PS3.5 section 9): digits and dots, at most 64 characters.

    Leading zeros in a component are forbidden by the standard but common in the field, and harmless; they are accepted.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        text = value.rstrip("\0 ")
        if len(text) > 64 or not _UID.fullmatch(text):
            raise InvalidIdentifier(f"{cls.__name__} is not a valid UID (digits and dots, 64 characters at most)")
        return super().__new__(cls, text)


class StudyUID(Uid):
    """Study Instance UID (0020,000D)."""

    __slots__ = ()


class SeriesUID(Uid):
    """Series Instance UID (0020,000E)."""

    __slots__ = ()


class InstanceUID(Uid):
    """SOP Instance UID (0008,0018)."""

    __slots__ = ()


class AETitle(str):
    """Application entity title (PS3.5 6.2): 1 to 16 characters, no backslash, outer spaces not significant."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        text = value.strip(" \0")
        if not _AE_TITLE.fullmatch(text):
            raise InvalidIdentifier("AE title is empty, longer than 16 characters or holds a forbidden character")
        return super().__new__(cls, text)


JobId = NewType("JobId", str)
"""32 hexadecimal digits: digest of input set, model and settings, so the same work always has the same id."""

InputSetId = NewType("InputSetId", str)
"""SHA-256 over the sorted (SOP Instance UID, content digest) pairs of the instances a job uses."""

AssociationId = NewType("AssociationId", str)
"""Random id of one inbound association or request."""

Sha256 = NewType("Sha256", str)
"""64 lower-case hexadecimal digits."""

ModelName = NewType("ModelName", str)
"""The name a site gives a model in its configuration."""

DestinationName = NewType("DestinationName", str)
"""The name a site gives a destination in its configuration."""


def digest(*parts: str) -> Sha256:
    """SHA-256 over parts, each preceded by its length so that no two part lists share an encoding."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode()
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return Sha256(state.hexdigest())


def derived_uid(*parts: str) -> Uid:
    """The UID that always belongs to these parts: ``2.25.`` and 128 bits of their digest (PS3.5 annex B.2)."""
    return Uid(f"2.25.{int(digest(*parts)[:32], 16)}")
