"""Group commit: what several threads want written goes into one transaction, and nobody waits for a timer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gateway.domain.errors import LedgerUnavailable

_MOST = 64  # items of one transaction

T = TypeVar("T")
R = TypeVar("R")


class _Entry(Generic[T, R]):
    def __init__(self, item: T) -> None:
        self.item = item
        self.result: R
        self.error: Exception | None = None
        self.done = False


class GroupCommit(Generic[T, R]):
    """Whoever comes while nobody commits does so at once, for itself and for all who have come until then.

    One thread alone pays for no second one. ``commit`` writes items in one transaction that is durable when it returns.
    """

    def __init__(self, commit: Callable[[Sequence[T]], Sequence[R]]) -> None:
        self._commit = commit
        self._waiting: deque[_Entry[T, R]] = deque()
        self._turn = threading.Lock()

    def __call__(self, item: T) -> R:
        """Returns when the item is durable; raises what writing it raised."""
        entry: _Entry[T, R] = _Entry(item)
        self._waiting.append(entry)
        while not entry.done:
            with self._turn:
                if not entry.done:
                    self._lead()
        if entry.error is not None:
            raise entry.error
        return entry.result

    def _lead(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
        if not self._together(batch):
            for entry in batch:  # one that cannot be written takes no other with it
                self._alone(entry)

    def _together(self, batch: Sequence[_Entry[T, R]]) -> bool:
        if len(batch) == 1:
            return False
        try:
            results = self._commit([entry.item for entry in batch])
        except LedgerUnavailable as error:  # each alone would wait as long once more, and in vain
            for entry in batch:
                entry.error, entry.done = error, True
            return True
        # Tried again one by one, where each error has its owner.
        except Exception:  # noqa: BLE001
            return False
        for entry, result in zip(batch, results, strict=True):
            entry.result, entry.done = result, True
        return True

    def _alone(self, entry: _Entry[T, R]) -> None:
        try:
            [entry.result] = self._commit([entry.item])
        # Whatever it is belongs to the thread whose item this is, and never to the one that leads.
        except Exception as error:  # noqa: BLE001
            entry.error = error
        entry.done = True
