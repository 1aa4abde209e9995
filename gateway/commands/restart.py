"""When a process that has died is started again: at once as a rule, later each time it dies young."""

from __future__ import annotations

import time

_FIRST, _LONGEST = 0.25, 30.0  # seconds


class RestartDelay:
    """Of one process. One that dies as soon as it is started must not keep the machine busy with starting."""

    def __init__(self) -> None:
        self._delay, self._born = _FIRST, 0.0
        self._again: float | None = None

    def started(self) -> None:
        """It runs from now on."""
        self._born, self._again = time.monotonic(), None

    def died(self) -> bool:
        """It is found dead; says whether that is news."""
        if self._again is not None:
            return False
        lived = time.monotonic() - self._born
        self._delay = _FIRST if lived > _LONGEST else min(2 * self._delay, _LONGEST)
        self._again = time.monotonic() + self._delay
        return True

    @property
    def over(self) -> bool:
        """Whether a dead process may be started again."""
        return self._again is not None and time.monotonic() >= self._again
