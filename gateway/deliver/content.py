"""Whether two copies of an object say the same. Pure.

An archive may change what describes patient, study and request (it knows better: coercion, PS3.4 B.2.3), add its own
private data, and encode anew. What makes the result must not change: identity, geometry, segments, content, pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

_IDENTITY = frozenset({0x00080016, 0x00080018, 0x00080060})  # SOP class, SOP instance, modality
_CONTENT = frozenset({0x0040A040, 0x0040A043, 0x0040A730, 0x0040A491, 0x0040A493})  # SR: value, title, content, flags
_GROUPS = frozenset({0x0020, 0x0028, 0x0042, 0x0062, 0x0070, 0x5200, 0x7FE0})
_NOTHING = ("", "None")
_COERCIBLE = frozenset({0x00200010, 0x00204000})  # study ID, image comments


def content_digest(dataset: Dataset) -> str:
    """SHA-256 over what must be the same in every copy; independent of transfer syntax and value representation."""
    state = hashlib.sha256()
    for element in dataset:
        if _belongs(element.tag):
            _feed(state, element)
    return state.hexdigest()


def _belongs(tag: BaseTag) -> bool:
    number = int(tag)
    if tag.is_private or number in _COERCIBLE:
        return False
    return number in _IDENTITY or number in _CONTENT or tag.group in _GROUPS


def _feed(state: hashlib._Hash, element: DataElement) -> None:
    state.update(f"{int(element.tag):08X}".encode())
    if element.VR == "SQ":
        for item in element.value or ():
            state.update(b"(")
            for inner in item:
                if inner.tag.element and not inner.tag.is_private:
                    _feed(state, inner)
            state.update(b")")
        return
    for value in _values(element):
        data = value if isinstance(value, bytes) else str(value).strip(" \0").encode()
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)


def _values(element: DataElement) -> list[object]:
    if element.value is None or element.value in ("", b""):
        return []
    return list(element.value) if isinstance(element.value, MultiValue | list) else [element.value]


def shared_values(mine: Dataset, theirs: Dataset, keywords: Sequence[str]) -> tuple[list[str], list[str]]:
    """Keywords whose values both have: those that are the same, and those that differ."""
    same: list[str] = []
    different: list[str] = []
    for keyword in keywords:
        here, there = str(mine.get(keyword, "")).strip(" \0"), str(theirs.get(keyword, "")).strip(" \0")
        if here not in _NOTHING and there not in _NOTHING:
            (same if here == there else different).append(keyword)
    return same, different
