"""Group commit: who waits shares a transaction, and an error stays with its owner."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.domain.errors import LedgerError, LedgerUnavailable
from gateway.store.group import GroupCommit
from tests.support.node import wait


class Gate:
    """A commit that waits in its first call until it is let go, and writes down every transaction."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.let_go = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> Sequence[str]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.let_go.wait(10)
        if 13 in items:
            raise LedgerError("13")
        return [str(item) for item in items]


def crowd(gate: Gate, items: Sequence[int]) -> list[str | Exception]:
    """One thread commits and is held up while all others come."""
    group: GroupCommit[int, str] = GroupCommit(gate)
    arrived = threading.Barrier(len(items))

    def one(item: int) -> str | Exception:
        if item != items[0]:
            arrived.wait(10)
        try:
            return group(item)
        except LedgerError as error:
            return error

    with ThreadPoolExecutor(len(items)) as pool:
        first = pool.submit(one, items[0])
        assert gate.entered.wait(10)
        rest = [pool.submit(one, item) for item in items[1:]]
        arrived.wait(10)
        while len(group._waiting) < len(items) - 1:
            pass  # they are on their way from the barrier
        gate.let_go.set()
        return [first.result(10), *(future.result(10) for future in rest)]


def test_one_alone() -> None:
    """One item is one transaction at once."""
    gate = Gate()
    gate.let_go.set()
    assert GroupCommit(gate)(7) == "7"
    assert gate.batches == [[7]]


def test_those_who_wait_go_together() -> None:
    """While one commits seven come: two transactions in all, and each hears of its own."""
    gate = Gate()
    assert crowd(gate, range(8)) == [str(number) for number in range(8)]
    assert gate.batches[0] == [0]
    assert sorted(gate.batches[1]) == list(range(1, 8))
    assert len(gate.batches) == 2


def test_an_error_has_one_owner() -> None:
    """One that cannot be written takes no other with it."""
    answers = crowd(Gate(), [0, 1, 13, 2, 3])
    assert isinstance(answers[2], LedgerError)
    assert [answer for answer in answers if not isinstance(answer, Exception)] == ["0", "1", "2", "3"]


def test_an_error_of_any_kind_comes_out() -> None:
    """A defect is raised where the item came from, and the next item is written."""
    failing = [ValueError()]

    def commit(items: Sequence[int]) -> Sequence[int]:
        if failing:
            raise failing.pop()
        return items

    group: GroupCommit[int, int] = GroupCommit(commit)
    with pytest.raises(ValueError):
        group(1)
    assert group(2) == 2


def test_a_ledger_that_nobody_can_use() -> None:
    """Whoever waits together hears of it together: each alone would wait as long as all of them, one after the other."""
    gate, calls = threading.Event(), list[int]()

    def commit(items: Sequence[int]) -> Sequence[int]:
        calls.append(len(items))
        gate.wait(10)
        if len(calls) > 1:
            raise LedgerUnavailable
        return items

    group, heard = GroupCommit(commit), list[Exception]()

    def call(number: int) -> None:
        try:
            group(number)
        except LedgerUnavailable as error:
            heard.append(error)

    first = threading.Thread(target=call, args=(0,))
    first.start()
    wait(lambda: calls == [1])
    others = [threading.Thread(target=call, args=(number,)) for number in range(1, 9)]
    for other in others:
        other.start()
    wait(lambda: len(group._waiting) == 8)
    gate.set()
    for thread in (first, *others):
        thread.join(10)
    assert (calls, len(heard)) == ([1, 8], 8)
