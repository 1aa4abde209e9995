"""One worker: claims the best job in the ledger, has it done by a model's process, and commits what came of it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from socket import gethostname

from gateway.bundle.files import bundle_digest, read_manifest
from gateway.bundle.fused import find_parts
from gateway.domain.crew import HERE, WorkerState
from gateway.domain.errors import (
    BundleInvalid,
    HilumError,
    LeaseLost,
    LedgerError,
    ModelDenied,
    ModelError,
    ModelOutputInvalid,
)
from gateway.domain.job import Claim, Priority
from gateway.domain.job_ledger import JobLedger
from gateway.domain.messages import InputFile, JobOrder, Outcome, PartBundle, ResultObject
from gateway.domain.ports import Spool
from gateway.domain.schedule import FRESH
from gateway.observe.logs import log
from workers.desk import Desk, own_folder
from workers.memory import LIBRARIES_MIB
from workers.warm import WarmModel, WarmModels

_AS_IT_LIES = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COMMIT_PATIENCE = 60.0  # seconds to wait for a ledger that is away when a result is ready


class _Stopped(Exception):
    """The worker was told to stop while a model was running."""


class Worker:
    """Does one job at a time. Rings and knocks may come from several threads."""

    def __init__(
        self,
        *,
        owner: str,
        ledger: JobLedger,
        spool: Spool,
        bundles: Mapping[str, Path],
        scratch: Path,
        lease: float,
        heartbeat: float,
        forms: Mapping[str, Collection[str]] | None = None,
        devices: Collection[str] = ("cpu",),
        least: Callable[[], Priority] = lambda: Priority.OFF_PEAK,
        memory_mib: int | None = None,
    ) -> None:
        """``forms``: destination -> roles that are only written because it may need them; ``least``: what may run now;
        ``memory_mib``: what all models may hold together, None for what the machine has."""
        self._devices, self._least = devices, least
        self._forms = forms or {}
        self._owner, self._ledger, self._spool, self._bundles = owner, ledger, spool, bundles
        self._lease, self._heartbeat = lease, heartbeat
        self._folder, self._stage = own_folder(scratch), ""
        self._models = WarmModels(self._folder, bundles.values(), self._enter, memory_mib=memory_mib)
        self._turn = FRESH
        self._open, self._room = self._models.open, self._models.room()  # as of before the job at hand
        self._told: WorkerState | None = None
        self._tell_again = 0.0
        self._busy = threading.Lock()
        self._stopping = threading.Event()
        self._log = log(stage="worker", owner=owner)

    def prepare(self) -> None:
        """Has the model's process load its libraries before the first job comes; to be called in a thread that stays."""
        with self._busy:
            self._models.prepare()

    def attend(self) -> None:
        """Tells the ledger that it is there, with what; to be called every few seconds, also while a job is at hand."""
        state = self._state()
        if state == self._told and time.monotonic() < self._tell_again:
            return
        self._ledger.attend(state)
        self._told, self._tell_again = state, time.monotonic() + HERE / 3

    def answer(self) -> bool:
        """Somebody rang: does the best job there is, after the one at hand. False where there is none."""
        with self._busy:
            return self._work()

    def knock(self) -> None:
        """Nobody rang for a while: does all the jobs there are, unless one is at hand already."""
        if self._busy.acquire(blocking=False):
            try:
                while self._work():
                    pass
            finally:
                self._busy.release()

    def stop(self) -> None:
        """Gives a running job back at once, and takes no other."""
        self._stopping.set()

    def close(self) -> None:
        """Ends the models' processes."""
        self.stop()
        with self._busy:
            self._models.close()
            with suppress(LedgerError):  # then it is found missing in a minute
                self._ledger.leave(self._owner)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _state(self) -> WorkerState:
        return WorkerState(
            owner=self._owner,
            host=gethostname(),
            devices=tuple(self._devices),
            memory_mib=self._room.total_mib,
            models=self._open,
            opened=self._models.opened,
        )

    def _work(self) -> bool:
        if self._stopping.is_set():
            return False
        turn = dataclasses.replace(self._turn, warm=self._models.loaded)
        self._open, self._room = self._models.open, self._models.room()
        claim = self._ledger.claim(
            self._owner, self._lease, turn=turn, devices=self._devices, least=self._least(), room=self._room
        )
        if claim is None:
            self._models.ease()
            return False
        self._turn, self._stage = claim.turn, ""
        started = time.monotonic()
        self._log.info("job started", job_id=claim.job.id, model=claim.job.draft.model, attempt=claim.fence)
        ended = self._settle(claim)
        self._log.info("job ended", job_id=claim.job.id, ended=ended, seconds=round(time.monotonic() - started, 2))
        return True

    def _settle(self, claim: Claim) -> str:
        try:
            bundle = self._bundle(claim)
            needs = claim.expected.memory_mib or read_manifest(bundle).resources.memory_mib + LIBRARIES_MIB
            with self._models.at_work(claim.job.draft.model_digest, needs) as model:
                try:
                    return self._commit(claim, self._run(claim, bundle, model), model.new_peak_mib())
                finally:
                    model.desk.tidy(claim.job.id)
        except _Stopped:
            self._ledger.give_back(claim)
            return "given back"
        except LeaseLost:
            return "lease lost; result thrown away"
        except HilumError as error:
            return self._fail(claim, error)

    def _bundle(self, claim: Claim) -> Path:
        draft = claim.job.draft
        bundle = self._bundles.get(draft.model)
        if bundle is None:
            raise BundleInvalid(f"model {draft.model!r} is not configured on this worker")
        if bundle_digest(bundle) != draft.model_digest:
            raise BundleInvalid(f"model {draft.model!r} is not the build that was admitted: its digest differs")
        return bundle

    def _run(self, claim: Claim, bundle: Path, model: WarmModel) -> Outcome:
        output = model.desk.output(claim.job.id)
        manifest = read_manifest(bundle)
        parts = find_parts(manifest, self._bundles.values())
        order = dataclasses.replace(
            self._order(claim, bundle, model.desk, output),
            parts=tuple(PartBundle(name=name, bundle=str(path)) for name, path in parts.items()),
        )
        outcome = model.process.run(order, timeout=manifest.resources.timeout_s, on_wait=self._waiter(claim, model))
        return keep_objects(outcome, output, self._spool)

    def _order(self, claim: Claim, bundle: Path, desk: Desk, output: Path) -> JobOrder:
        instances = self._ledger.input_instances(claim.job.id)
        requested = self._ledger.requested_procedure(claim.job.id)
        draft = claim.job.draft
        names: dict[tuple[str, str], list[str]] = {}  # parts of a fusion may take the same series
        for one, series in zip(draft.inputs, draft.series, strict=False):
            names.setdefault(series, []).append(one.name)
        return JobOrder(
            job_id=claim.job.id,
            bundle=str(bundle),
            inputs=tuple(
                InputFile(
                    sop_instance_uid=item.header.sop_instance_uid,
                    path=str(desk.lay(claim.job.id, self._spool.path(item.file))),
                    sha256=item.sha256,
                    input=name,
                )
                for item in instances
                for name in names.get((item.header.study_uid, item.header.series_uid), [""])
            ),
            output_dir=str(output),
            content_time=claim.job.created_at,
            flags=claim.job.draft.flags,
            requested=(requested,) if requested else (),
            predecessors=self._predecessors(claim),
            extra_roles=self._extra_roles(claim),
            on_refusal=claim.job.draft.on_refusal.value,
        )

    def _extra_roles(self, claim: Claim) -> tuple[str, ...]:
        """What beside the usual set some destination of this job may need."""
        wanted = {role for name in claim.job.draft.deliver for role in self._forms.get(name, ())}
        return tuple(sorted(wanted))

    def _predecessors(self, claim: Claim) -> tuple[ResultObject, ...]:
        """The objects of the version that this job's result will replace, where that one has come so far."""
        before = claim.job.supersedes
        while before is not None:
            earlier = self._ledger.job(before)
            if earlier.outcome is not None and earlier.outcome.status == "complete":
                return earlier.outcome.objects
            before = earlier.supersedes  # refused or dead: the result before it is the one in force
        return ()

    def _enter(self, stage: str) -> None:
        self._stage = stage

    def _waiter(self, claim: Claim, model: WarmModel) -> _Waiter:
        return _Waiter(
            self._ledger,
            claim,
            self._lease,
            self._heartbeat,
            self._stopping,
            stage=lambda: self._stage,
            held_mib=lambda: model.held_mib,
        )

    def _commit(self, claim: Claim, outcome: Outcome, peak_mib: int) -> str:
        deadline = time.monotonic() + _COMMIT_PATIENCE
        while True:
            try:
                self._ledger.commit(claim, outcome, peak_mib)
                return outcome.status
            except LeaseLost:
                raise
            except LedgerError:
                # Whether the commit arrived is unknown; repeating it is safe.
                if time.monotonic() > deadline:
                    raise
                self._stopping.wait(1.0)

    def _fail(self, claim: Claim, error: HilumError) -> str:
        try:
            # Another try with the same bundle gives the same refusal; anything else may be luck.
            state = self._ledger.fail(claim, error.message, permanent=isinstance(error, BundleInvalid | ModelDenied))
        except LedgerError as trouble:
            return f"not recorded ({trouble.message}); the lease will run out"
        kind = "model failed" if isinstance(error, ModelError) else "failed"
        self._log.warning(kind, job_id=claim.job.id, reason=error.message, state=state.value)
        return state.value


def keep_objects(outcome: Outcome, output: Path, spool: Spool) -> Outcome:
    """Moves result objects into the spool, durable, and names them by their keys. Raises ModelOutputInvalid.

    A key names the content too: a worker that lost its lease may come here late, and must not replace bytes that are on
    their way already.
    """
    kept = []
    for item in outcome.objects:
        content = _read_object(output, item)
        key = spool.put(f"result {item.sop_instance_uid} {item.sha256}", [content])
        kept.append(dataclasses.replace(item, file=key))
    return dataclasses.replace(outcome, objects=tuple(kept))


def _read_object(output: Path, item: ResultObject) -> bytes:
    """A file that the model's process has left; its word for it is not enough. No link leads out of its folder."""
    try:
        if Path(item.file).name != item.file:
            raise ModelOutputInvalid("a result object lies outside of the job's folder")
        with os.fdopen(os.open(output / item.file, _AS_IT_LIES), "rb") as file:
            content = file.read(item.size + 1)
    except OSError as error:
        raise ModelOutputInvalid(f"a result object cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise ModelOutputInvalid("a result object is not the one that was judged")
    return content


class _Waiter:
    """Called every second or so while a model runs: keeps the lease, and notices when to stop."""

    def __init__(
        self,
        ledger: JobLedger,
        claim: Claim,
        lease: float,
        heartbeat: float,
        stopping: threading.Event,
        *,
        stage: Callable[[], str],
        held_mib: Callable[[], int],
    ) -> None:
        self._ledger, self._claim, self._lease = ledger, claim, lease
        self._heartbeat, self._stopping = heartbeat, stopping
        self._stage, self._held_mib = stage, held_mib
        self._begun, self._told = time.monotonic(), ""
        self._next = self._begun + heartbeat

    def __call__(self) -> None:
        if self._stopping.is_set():
            raise _Stopped
        now, stage = time.monotonic(), self._stage()
        if now < self._next and stage == self._told:
            return
        self._next, self._told = now + self._heartbeat, stage
        try:
            done = how_far(stage, now - self._begun, self._claim.expected.seconds)
            self._ledger.heartbeat(self._claim, self._lease, stage, done, self._held_mib())
        except LeaseLost:
            raise
        except LedgerError:
            self._next = time.monotonic() + 1.0  # the ledger is away for now; the lease still runs


_STAGES = {
    "open": 0.0,
    "load": 0.05,
    "infer": 0.15,
    "fuse": 0.65,
    "measure": 0.7,
    "uncertainty": 0.75,
    "encode": 0.85,
    "verify": 0.95,
}
"""Where each stage begins in a job, as far as can be told of a model that has given no result yet."""


def how_far(stage: str, seconds: float, expected: float | None) -> float:
    """The part of a job that is done, 0 to 0.99: by what the model has taken lately, else by its stage."""
    if not expected:
        return _STAGES.get(stage, 0.0)
    return min(seconds / expected, 0.99)
