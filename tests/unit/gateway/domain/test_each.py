"""One of several that fails: the others have their turn, and it is told all the same."""

from __future__ import annotations

import pytest

from gateway.domain.each import do_each
from gateway.domain.errors import LedgerUnavailable


def test_all_have_their_turn() -> None:
    """The first failure is the one that is told."""
    done = []

    def work(number: int) -> None:
        done.append(number)
        if number % 2:
            raise KeyError(number)

    with pytest.raises(KeyError, match="1"):
        do_each([0, 1, 2, 3], work)
    assert done == [0, 1, 2, 3]


def test_nothing_went_wrong() -> None:
    """Then nothing is raised."""
    done: list[int] = []
    do_each([1, 2], done.append)
    assert done == [1, 2]


def test_a_ledger_that_nobody_can_use_is_asked_once() -> None:
    """Each would wait for it as long again."""
    done = []

    def work(number: int) -> None:
        done.append(number)
        raise LedgerUnavailable

    with pytest.raises(LedgerUnavailable):
        do_each([1, 2], work)
    assert done == [1]
