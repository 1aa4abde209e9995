"""What the answer to a STOW-RS request means for each object (PS3.18 10.5.3). Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.deliver import status
from gateway.domain.job import Receipt, Verdict

_SOP_CLASS_UID, _SOP_INSTANCE_UID = "00080016", "00080018"
_REFERENCED_SOP_SEQUENCE, _FAILED_SOP_SEQUENCE = "00081199", "00081198"
_REFERENCED_SOP_INSTANCE_UID, _WARNING_REASON, _FAILURE_REASON = "00081155", "00081196", "00081197"

_LATER = frozenset({401, 404, 408, 425, 429, 507})
"""No word about the object: credentials being changed, a service not up behind its proxy, busy, full."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an answer says."""

    receipts: dict[str, Receipt] = field(default_factory=dict)  # where it is clear
    doubtful: dict[str, Receipt] = field(default_factory=dict)  # not unless the destination shows the object
    refused: Receipt | None = None  # the request as a whole, no word about a single object


def read_answer(code: int, payload: bytes, uids: Collection[str]) -> Reading:
    """Receipts for the objects of a request, from the HTTP status and the Store Instances Response Module.

    An object is stored only where a 200 or 202 names it. A success that does not name it (an empty body, a login page),
    one with a warning and a duplicate are doubtful.
    """
    stored, failed = _results(payload)
    if code not in (200, 202) and not failed:
        return Reading(refused=_refusal(code))
    reading = Reading()
    for uid in uids:
        clear, receipt = _judge(code, uid, stored, failed)
        (reading.receipts if clear else reading.doubtful)[uid] = receipt
    return reading


def _judge(code: int, uid: str, stored: dict[str, int], failed: dict[str, int]) -> tuple[bool, Receipt]:
    if uid in failed:
        return failed[uid] not in status.DUPLICATES, status.receipt(failed[uid])
    if uid in stored and code in (200, 202):
        return stored[uid] == 0, status.receipt(stored[uid])
    return False, Receipt(verdict=Verdict.RETRY, answer=f"HTTP {code} without a word about this object")


def found_classes(payload: bytes, uid: str) -> set[str]:
    """SOP classes under which a QIDO-RS answer has an instance; nothing where it is not found or cannot be read."""
    try:
        matches = json.loads(payload or b"[]")
    except (ValueError, RecursionError):
        return set()
    items = matches if isinstance(matches, list) else []
    return {str(_first(item, _SOP_CLASS_UID)) for item in items if _first(item, _SOP_INSTANCE_UID) == uid}


def _refusal(code: int) -> Receipt:
    if 300 <= code < 400:
        return Receipt(verdict=Verdict.REJECTED, answer=f"HTTP {code}: redirects are not followed; correct the url")
    permanent = code in (501, 505) or (400 <= code < 500 and code not in _LATER)
    return Receipt(verdict=Verdict.REJECTED if permanent else Verdict.RETRY, answer=f"HTTP {code}")


def _results(payload: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """Stored instances with their warning (0 for none), and failed ones with their reason; nothing if unreadable."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return {}, {}
    module = document[0] if isinstance(document, list) and document else document
    if not isinstance(module, dict):
        return {}, {}
    stored = dict(_items(module.get(_REFERENCED_SOP_SEQUENCE), _WARNING_REASON, 0))
    failed = dict(_items(module.get(_FAILED_SOP_SEQUENCE), _FAILURE_REASON, 0x0110))
    return stored, failed


def _items(sequence: Any, reason: str, default: int) -> Iterator[tuple[str, int]]:
    items = sequence.get("Value") if isinstance(sequence, dict) else None
    for item in items if isinstance(items, list) else ():
        uid = _first(item, _REFERENCED_SOP_INSTANCE_UID)
        code = _first(item, reason)
        if isinstance(uid, str):
            # A reason that cannot be read must not turn into success.
            yield uid, code if isinstance(code, int) else default if code is None else 0x0110


def _first(item: Any, tag: str) -> Any:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
