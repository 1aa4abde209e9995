"""A process of `hilum serve` under watch: started, found dead, started again, ended.

It is started again at once as a rule, later each time it dies young: one that dies as soon as it is started must not keep the
machine busy with starting.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from gateway.submit.embedded import die_with_parent

_FIRST, _LONGEST = 0.25, 30.0  # seconds until it is started again


class ChildProcess:
    """One process at a time, and what comes after it dies. Ends with its parent."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._delay, self._born = _FIRST, 0.0
        self._again: float | None = None  # when it may be started again, once it has been found dead

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def exit_status(self) -> int | None:
        """Of one that has been found dead."""
        return self._process.returncode if self._process else None

    def start(self, module: str, arguments: Sequence[str], descriptors: Sequence[int] = ()) -> None:
        """Runs a module of ours with this interpreter; the descriptors are open there too, under the same numbers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C reaches only the gateway, which then stops the others in order
            preexec_fn=die_with_parent,
        )
        self._born, self._again = time.monotonic(), None

    def found_dead(self) -> bool:
        """Whether it has died, said once for each death."""
        if self._process is None or self._process.poll() is None or self._again is not None:
            return False
        lived = time.monotonic() - self._born
        self._delay = _FIRST if lived > _LONGEST else min(2 * self._delay, _LONGEST)
        self._again = time.monotonic() + self._delay
        return True

    @property
    def due(self) -> bool:
        """Whether it has been found dead and may be started again."""
        return self._again is not None and time.monotonic() >= self._again

    def terminate(self) -> None:
        """Asks it to end."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, grace: float) -> None:
        """Waits so many seconds for its end, then ends it."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
