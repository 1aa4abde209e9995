"""Writers of several processes, one after another."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway.store import turn
from gateway.store.turn import Turn


def test_one_after_another(tmp_path: Path) -> None:
    """Who comes second is in only when the first is out."""
    first, second = Turn(tmp_path / "turn"), Turn(tmp_path / "turn")
    order: list[str] = []
    asked = threading.Event()

    def follow() -> None:
        asked.set()
        with second:
            order.append("second")

    with first:
        thread = threading.Thread(target=follow)
        thread.start()
        asked.wait(10)
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_one_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has a lock of its own, and says by itself that it cannot be used."""
    monkeypatch.setattr(turn, "_PATIENCE", 0.05)
    with Turn(tmp_path / "turn"), Turn(tmp_path / "turn"):
        pass
