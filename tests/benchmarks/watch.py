"""What a receiver costs while something is done."""

from __future__ import annotations

import threading

from tests.benchmarks.receivers import Receiver


class Watch:
    """Processor time and the most memory of a receiver while something is done."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._over = receiver, threading.Event()
        self.idle = self.memory = receiver.memory()
        self.cpu = 0.0

    def __enter__(self) -> Watch:
        self._cpu = self._receiver.cpu()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.cpu = self._receiver.cpu() - self._cpu

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.memory = max(self.memory, self._receiver.memory())
