"""Work on several things, none of which may hold up the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from gateway.domain.errors import LedgerUnavailable

T = TypeVar("T")


class Failures:
    """What went wrong with some of them, kept until all have had their turn."""

    def __init__(self) -> None:
        self._first: Exception | None = None

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Around the work on one. A ledger that cannot be used is everybody's: LedgerUnavailable goes on at once."""
        try:
            yield
        except LedgerUnavailable:
            raise
        # Kept, and raised by `tell`: a defect that one study brings out must not stop the studies behind it.
        except Exception as error:  # noqa: BLE001
            self._first = self._first or error

    def tell(self) -> None:
        """Raises what the first that failed has raised, if any has."""
        if self._first is not None:
            raise self._first


def do_each(items: Iterable[T], work: Callable[[T], object]) -> None:
    """Works on each of them; raises at the end what the first that failed has raised, LedgerUnavailable at once."""
    failures = Failures()
    for item in items:
        with failures.apart():
            work(item)
    failures.tell()
