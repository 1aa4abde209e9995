"""What several tests of workers need."""

from __future__ import annotations

import pytest


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory limit is for a process of its own, not for the one the tests run in."""
    monkeypatch.setattr("workers.child.limit_memory", lambda mebibytes: None)
