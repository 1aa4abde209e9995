"""How associations have ended is evidence that holding waits for: written down at once, or as soon as the ledger can be used."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from gateway.domain.errors import HilumError
from gateway.domain.ids import AssociationId
from gateway.observe.logs import log

_PAUSE = 2.0  # seconds between two tries


class AssociationEnds:
    """Used by many threads. What is still unwritten when the process ends is closed as lost at the next start."""

    def __init__(self, write: Callable[[AssociationId, str], None], pause: float = _PAUSE) -> None:
        self._write, self._pause = write, pause
        self._waiting: deque[tuple[AssociationId, str]] = deque()
        self._lock = threading.Lock()

    def record(self, association: AssociationId, how: str) -> None:
        """An association ended: `released`, `refused`, `aborted` or `lost`. Never raises for a ledger that cannot be used now."""
        try:
            self._write(association, how)
        except HilumError as error:
            log(stage="receive").error("association end not recorded yet", association=association, error=error.message)
            with self._lock:
                self._waiting.append((association, how))
                if len(self._waiting) == 1:
                    threading.Thread(target=self._later, name="association ends", daemon=True).start()

    def _later(self) -> None:
        """Writes what waits, the oldest first, until nothing does."""
        while True:
            time.sleep(self._pause)
            try:
                self._write(*self._waiting[0])
            except HilumError:
                continue
            with self._lock:
                self._waiting.popleft()
                if not self._waiting:
                    return
