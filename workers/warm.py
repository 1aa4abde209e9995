"""Models that are kept open, each in a process of its own: the one used longest ago ends when memory is short."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname

from gateway.domain.crew import OpenModel, Room
from gateway.observe.logs import log
from workers.desk import Desk
from workers.memory import free_and_total_mib, free_mib, held_mib, peak_mib
from workers.supervisor import CHILD, ModelProcess


class WarmModel:
    """A model's process, and the folder that is its own."""

    def __init__(self, desk: Desk, process: ModelProcess) -> None:
        self.desk, self.process = desk, process
        self._peak_mib = 0

    @property
    def held_mib(self) -> int:
        """What it holds now."""
        return held_mib(self.process.pid)

    def new_peak_mib(self) -> int:
        """The most that it has ever held, where it was in its last job; 0 where that held no more than one before it."""
        before, self._peak_mib = self._peak_mib, peak_mib(self.process.pid)
        return self._peak_mib if self._peak_mib > before else 0

    def close(self) -> None:
        """Ends the process, and takes its folder away."""
        self.process.close()
        self.desk.clear()


class WarmModels:
    """A worker's models by the digest of their build. Not for several threads at once; see `ModelProcess`."""

    def __init__(
        self,
        folder: Path,
        bundles: Collection[Path],
        on_stage: Callable[[str], None] = lambda stage: None,
        *,
        memory_mib: int | None = None,
        command: Sequence[str] = CHILD,
    ) -> None:
        """``memory_mib``: what all of them may hold together; None: what the machine or its container has."""
        self._folder, self._bundles, self._on_stage = folder, bundles, on_stage
        self._limit, self._command = memory_mib, command
        self._held: OrderedDict[str, WarmModel] = OrderedDict()  # the one used last is at the end
        self._spare: WarmModel | None = None
        self._made = self.opened = 0
        self._log = log(stage="worker")

    @property
    def open(self) -> tuple[OpenModel, ...]:
        """Models and what they hold, the one used longest ago first."""
        found = [(digest, model.held_mib) for digest, model in self._held.items()]
        return tuple(OpenModel(digest=digest, held_mib=held) for digest, held in found if held)

    def room(self) -> Room:
        """What a job could have, with all that is open here closed for it."""
        free, total = free_and_total_mib()
        return Room(host=gethostname(), free_mib=free + sum(one.held_mib for one in self.open), total_mib=total)

    def ease(self) -> None:
        """Closes models, the one used longest ago first, while the machine has nothing left for others."""
        while self._held and not free_mib():
            self._end(next(iter(self._held)))

    @property
    def loaded(self) -> frozenset[str]:
        """Digests of the models that are open."""
        return frozenset(digest for digest, model in self._held.items() if model.process.pid)

    def prepare(self) -> None:
        """Has a process load the libraries before it is known which model will be the first."""
        if not self._held and self._spare is None:
            self._spare = self._make()
            self._spare.process.start()

    @contextmanager
    def at_work(self, digest: str, needs_mib: int) -> Iterator[WarmModel]:
        """The model of this build, for one job that will hold up to so many MiB. Others end, the one used longest ago first,
        while there is not enough memory for it."""
        model = self._take(digest, needs_mib)
        try:
            yield model
        finally:
            if not model.process.pid:  # it has died, or was ended: whatever comes next begins with nothing of it
                del self._held[digest]
                model.close()

    def close(self) -> None:
        """Ends all of them."""
        for digest in list(self._held):
            self._end(digest)
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _take(self, digest: str, needs_mib: int) -> WarmModel:
        self._make_room(digest, needs_mib)
        if digest not in self._held:
            self._held[digest], self._spare = self._spare or self._make(), None
            self.opened += 1
            self._log.info("model opened", digest=digest, needs_mib=needs_mib, open=len(self._held))
        self._held.move_to_end(digest)
        return self._held[digest]

    def _make_room(self, digest: str, needs_mib: int) -> None:
        while others := [name for name in self._held if name != digest]:
            if needs_mib <= self._room(digest):
                return
            self._log.info("model closed to make room", digest=others[0], needs_mib=needs_mib)
            self._end(others[0])

    def _room(self, digest: str) -> int:
        """What this model could hold beside the others, in MiB."""
        held = {name: model.held_mib for name, model in self._held.items()}
        own = held.pop(digest, 0)
        return free_mib() + own if self._limit is None else self._limit - sum(held.values())

    def _make(self) -> WarmModel:
        self._made += 1
        desk = Desk.lay_out(self._folder / str(self._made))
        return WarmModel(desk, ModelProcess(desk.room(self._bundles), self._on_stage, command=self._command))

    def _end(self, digest: str) -> None:
        self._held.pop(digest).close()
