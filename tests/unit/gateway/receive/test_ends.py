"""Ends of associations while the ledger cannot be used."""

from __future__ import annotations

import threading

from gateway.domain.errors import LedgerUnavailable
from gateway.domain.ids import AssociationId
from gateway.receive.ends import AssociationEnds
from tests.support.node import wait


def test_written_when_the_ledger_is_back() -> None:
    """None is forgotten and none is written twice, whenever it came; and the thread that waits for it ends."""
    others = set(threading.enumerate())  # of other tests
    closed: list[tuple[str, str]] = []
    locked = threading.Event()
    locked.set()

    def write(association: AssociationId, how: str) -> None:
        if locked.is_set():
            raise LedgerUnavailable
        closed.append((association, how))

    ends = AssociationEnds(write, pause=0.01)
    said = [(AssociationId(str(number)), "released") for number in range(20)]
    callers = [threading.Thread(target=ends.record, args=one) for one in said]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert closed == []
    locked.clear()
    wait(lambda: len(closed) == 20)
    assert sorted(closed) == sorted(said)
    ends.record(AssociationId("at once"), "lost")
    assert closed[-1] == ("at once", "lost")
    wait(lambda: "association ends" not in {thread.name for thread in set(threading.enumerate()) - others})
    locked.set()
    ends.record(AssociationId("again"), "aborted")
    locked.clear()
    wait(lambda: closed[-1] == ("again", "aborted"))
