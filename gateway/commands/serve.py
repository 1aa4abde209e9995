"""`hilum serve`, `hilum gateway`, `hilum worker`: the long-running roles, alone or as one process tree."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from gateway import bootstrap
from gateway.commands.child import ChildProcess
from gateway.commands.receive import ReceiverProcess, Receivers, how_many
from gateway.commands.status import STATUS_FILE
from gateway.commands.web import WebProcess
from gateway.domain.errors import HilumError, LedgerUnavailable
from gateway.domain.ids import AssociationId
from gateway.observe.logs import configure, log
from gateway.pipeline import Pipeline
from gateway.receive.dimse import DimseNode
from gateway.receive.ends import AssociationEnds
from gateway.settings import Settings, read_settings
from gateway.store.ledger import SqlLedger
from gateway.store.lock import beat, exclusive
from gateway.store.spool import LocalSpool
from gateway.submit.broker import CeleryBroker
from gateway.submit.embedded import EmbeddedBroker

_ROUND, _SHORTEST = 0.2, 0.01  # seconds between rounds of the pipeline, at most and at least
_BEAT = 2.0  # seconds between two signs of life
_WORKER = "workers.app"
_WORKER_GRACE = 15.0  # seconds a worker gets to give its job back


def serve(config: Path | None, *, workers: int = 1) -> None:
    """Runs the gateway, its broker and its workers until SIGTERM or SIGINT; raises HilumError when it cannot start."""
    configure()
    settings = read_settings(config)
    stop = _stop_signal()
    with ExitStack() as stack:
        stack.enter_context(exclusive(settings.data_dir))
        ledger = bootstrap.make_ledger(settings)
        stack.callback(ledger.close)
        ledger.recover()
        spool = bootstrap.make_spool(settings)
        if swept := spool.sweep():
            log().warning("half-written files of an earlier run removed", files=swept)
        broker = _embedded(settings, stack)
        url = broker.url if broker else settings.broker.url
        bell = CeleryBroker(url)
        stack.callback(bell.close)
        wake = threading.Event()
        inquiries = bootstrap.make_inquiries(settings, ledger, wake.set)
        for inquirer in inquiries.values():
            inquirer.start()
            stack.callback(inquirer.stop)
        inbox = bootstrap.make_inbox(settings, ledger, spool)
        pipeline = bootstrap.make_pipeline(settings, ledger, spool, bell, inquiries, inbox)
        web = WebProcess(config, settings.http)
        stack.callback(web.stop)
        reporter = bootstrap.make_reporter(settings, ledger, spool)
        reporter.start()
        stack.callback(reporter.stop)
        node = bootstrap.make_node(settings, ledger, spool, reporter)
        receivers = _receivers(config, settings, node, ledger, spool)
        for receiver in receivers:
            receiver.start()
            stack.callback(receiver.stop)
        node.start()
        stack.callback(node.stop)
        listener = bootstrap.make_listener(settings, inbox)
        if listener is not None:
            listener.start()
            stack.callback(listener.stop)
        web.start()
        for dispatcher in bootstrap.make_dispatchers(settings, ledger, spool):
            dispatcher.start()
            stack.callback(dispatcher.stop)
        crew = [WorkerProcess(config, url, ledger) for _ in range(workers)]
        for member in crew:
            member.start()
            stack.callback(member.stop)
        ports = {"dicom_port": node.port, "hl7_port": listener.port if listener else 0, "http_port": web.port}
        status = _Status(settings, ports, web, broker, crew, receivers)
        stack.callback(status.remove)
        status.write()
        log().info("ready", **ports, workers=workers)
        rounds = _Rounds(stop, wake, pipeline)
        # What is here by now stays: a collection that looked through all of it would hold up every sender.
        gc.collect()
        gc.freeze()
        again = [pipeline.take_back_lost, pipeline.hold_back_stranded]
        _run(rounds, settings, again, [broker, web, *receivers, *crew], status, _Pulse(settings, node))
        log().info("stopping")


def run_worker(config: Path | None) -> int:
    """Runs one worker in the foreground, as its own process would."""
    settings = read_settings(config)
    url = EmbeddedBroker(settings.data_dir).url if settings.broker.url == "embedded" else settings.broker.url
    return subprocess.call([sys.executable, "-m", _WORKER, *_worker_options(config, url)])


class WorkerProcess:
    """A worker under watch: started again when it dies, its jobs queued again at once."""

    def __init__(self, config: Path | None, broker_url: str, ledger: SqlLedger) -> None:
        self._config, self._url, self._ledger = config, broker_url, ledger
        self._owner = ""
        self._child = ChildProcess()

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._child.pid

    def start(self) -> None:
        """Starts the process."""
        self._owner = f"{os.getpid()}:{uuid.uuid4().hex}"
        self._child.start(_WORKER, [*_worker_options(self._config, self._url), "--name", self._owner])

    def revive(self) -> bool:
        """Queues the job of a worker that has died at once, and starts the worker again; says whether it has."""
        if self._child.found_dead():
            taken = self._ledger.take_back(self._owner)
            self._ledger.leave(self._owner)
            log(stage="submit").error("worker died", exit_status=self._child.exit_status, jobs=list(taken))
        if not self._child.due:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """Asks the worker to give back what it has and end, and ends it if it does not."""
        if not self.pid:
            return
        self._child.terminate()
        self._child.wait(_WORKER_GRACE)
        self._ledger.take_back(self._owner)
        self._ledger.leave(self._owner)


class _Status:
    """Which processes and ports there are, for people and for tests."""

    def __init__(
        self,
        settings: Settings,
        ports: dict[str, int],
        web: WebProcess,
        broker: EmbeddedBroker | None,
        crew: list[WorkerProcess],
        receivers: list[ReceiverProcess],
    ) -> None:
        self._file = settings.data_dir / STATUS_FILE
        self._ports, self._web, self._broker, self._crew = ports, web, broker, crew
        self._receivers = receivers

    def write(self) -> None:
        values = {
            "pid": os.getpid(),
            **self._ports,
            "web_pid": self._web.pid,
            "broker_pid": self._broker.pid if self._broker else 0,
            "receiver_pids": [receiver.pid for receiver in self._receivers],
            "worker_pids": [member.pid for member in self._crew],
        }
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(values))
        temporary.rename(self._file)

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


class _Pulse:
    """A sign of life for `/readyz`, as long as connections are taken."""

    def __init__(self, settings: Settings, node: DimseNode) -> None:
        self._data_dir, self._node = settings.data_dir, node
        self._next = 0.0

    def beat(self) -> None:
        """Once in a while."""
        if self._node.accepting and time.monotonic() >= self._next:
            self._next = time.monotonic() + _BEAT
            beat(self._data_dir)


class _Rounds:
    """When the pipeline goes round: every so often, at once after news, and just when a study may become due."""

    def __init__(self, stop: threading.Event, wake: threading.Event, pipeline: Pipeline) -> None:
        self._stop, self._wake, self._pipeline = stop, wake, pipeline

    def advance(self) -> None:
        """One round: a step that fails must not keep studies from being released, nor results from going out, for ever.

        Raises LedgerUnavailable: the steps after it would only wait for the same.
        """
        for step in self._pipeline.steps:
            _guarded(step, but=LedgerUnavailable)

    def wait(self) -> bool:
        """Waits for the next round; False when there is none."""
        pause = min(_ROUND, max(_SHORTEST, self._pipeline.next_look - time.time()))
        if self._wake.wait(pause):
            self._wake.clear()
        return not self._stop.is_set()


def _run(
    rounds: _Rounds,
    settings: Settings,
    reconcile: list[Callable[[], None]],
    watched: Sequence[EmbeddedBroker | WebProcess | ReceiverProcess | WorkerProcess | None],
    status: _Status,
    pulse: _Pulse,
) -> None:
    next_reconcile = 0.0
    while rounds.wait():
        _guarded(rounds.advance)
        if any([_guarded(part.revive) for part in watched if part is not None]):
            _guarded(status.write)
        _guarded(pulse.beat)
        if time.monotonic() >= next_reconcile:
            next_reconcile = time.monotonic() + settings.jobs.reconcile
            for step in reconcile:
                _guarded(step)


def _guarded(step: Callable[[], object], but: type[Exception] | tuple[()] = ()) -> object:
    try:
        return step()
    except but:
        raise
    # The edge of the process: a full disk or a busy database must not end it, and a defect in one step not the others.
    except Exception as error:  # noqa: BLE001
        if isinstance(error, HilumError):
            log().error("step failed", step=step.__qualname__, reason=error.message)
        else:
            log().exception("step failed", step=step.__qualname__)
        return None


def _receivers(
    config: Path | None, settings: Settings, node: DimseNode, ledger: SqlLedger, spool: LocalSpool
) -> list[ReceiverProcess]:
    """None where the gateway receives by itself; it does so too while none of them lives."""
    many = how_many(settings.dicom.processes)
    ends = AssociationEnds(ledger.close_association)

    def lost(process: int, associations: Sequence[AssociationId]) -> None:
        for association in associations:
            ends.record(association, "lost")
        spool.sweep(process)

    crew = [ReceiverProcess(config, node.connections, lost) for _ in range(many)] if many > 1 else []
    node.hand_over_to(Receivers(crew).take)
    return crew


def _embedded(settings: Settings, stack: ExitStack) -> EmbeddedBroker | None:
    if settings.broker.url != "embedded":
        return None
    broker = EmbeddedBroker(settings.data_dir)
    broker.start()
    stack.callback(broker.stop)
    return broker


def _worker_options(config: Path | None, broker_url: str) -> list[str]:
    return [*(["--config", str(config)] if config else []), "--broker", broker_url]


def _stop_signal() -> threading.Event:
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
