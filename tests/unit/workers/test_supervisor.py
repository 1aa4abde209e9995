"""The supervisor against children that behave in every way a process can; none of them loads a library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.domain.errors import BundleInvalid, ModelCrashed, ModelDenied, ModelOutOfMemory, ModelTimedOut
from gateway.domain.messages import InputFile, JobOrder
from workers.sandbox.room import Room
from workers.supervisor import ModelProcess

CHILD = """
import json, os, signal, subprocess, sys, time

MODEL = {"name": "m", "version": "1", "digest": "d", "device_uid": "2.25.1", "manufacturer": "h"}

def say(**message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()

for line in sys.stdin:
    order = json.loads(line)
    say(stage="infer")
    what = order["job_id"]
    if what == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
    if what == "killed": os.kill(os.getpid(), signal.SIGKILL)
    if what == "exits": os._exit(3)
    if what == "hangs": signal.pause()
    if what == "children":
        child = subprocess.Popen(["sleep", "600"])
        open(order["output_dir"] + "/pid", "w").write(str(child.pid))
        signal.pause()
    if what == "orphan":  # dies, and leaves a process that holds the pipe open
        child = subprocess.Popen(["sleep", "600"])
        open(order["output_dir"] + "/pid", "w").write(str(child.pid))
        os._exit(4)
    if what == "closes":
        os.close(1)
        signal.pause()
    if what == "nonsense": print("hello", flush=True)
    if what == "memory": say(error="the model's process ran out of memory during infer", kind="ModelOutOfMemory")
    if what == "bundle": say(error="the bundle is wrong", kind="BundleInvalid")
    if what == "kind": say(error="x", kind="SystemExit")
    if what == "other": order["job_id"] = "another"
    objects = [{"file": order["output_dir"] + "/bundle/hilum.yaml"}] if what == "forges" else []
    if what == "fills":
        scratch = json.loads(sys.argv[2])[1]
        os.makedirs(scratch, exist_ok=True)
        open(scratch + "/big", "wb").write(bytes(2 * 2**20))
        signal.pause()
    flags = [str(os.getpid()), *sorted(os.environ), str(len(order["inputs"]))]
    say(outcome={"job_id": order["job_id"], "status": "complete", "model": MODEL, "flags": flags, "version": 1,
        "objects": [{"role": "seg", "sop_class_uid": "1", "sop_instance_uid": "1", "series_uid": "1", "sha256": "",
                     "size": 1, **item} for item in objects]})
    if what == "dies later": os._exit(5)
"""


@pytest.fixture
def child(tmp_path: Path) -> list[str]:
    """The command line of a child that does what the job's id says."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    return [sys.executable, str(script)]


def room(tmp_path: Path) -> Room:
    """What the children could be given; none of them asks."""
    return Room(readable=(), writable=tmp_path / "scratch", scratch_mib=1)


@pytest.fixture
def process(child: list[str], tmp_path: Path) -> Iterator[ModelProcess]:
    """A supervisor of such a child."""
    made = ModelProcess(room(tmp_path), command=child)
    yield made
    made.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A directory that stands for a bundle."""
    made = tmp_path / "bundle"
    made.mkdir()
    (made / "hilum.yaml").write_text("one")
    return made


def order(what: str, bundle: Path, inputs: int = 0) -> JobOrder:
    """An order whose id tells the child what to do."""
    files = (InputFile(sop_instance_uid="1.2.3", path="/x" * 50, sha256="0" * 64),) * inputs
    return JobOrder(job_id=what, bundle=str(bundle), inputs=files, output_dir=str(bundle.parent), content_time=0.0)


def test_the_outcome_comes_back_and_the_child_stays_warm(process: ModelProcess, bundle: Path) -> None:
    """Two jobs on one bundle are done by one process."""
    first = process.run(order("one", bundle), timeout=30)
    second = process.run(order("two", bundle), timeout=30)
    assert (first.job_id, second.job_id) == ("one", "two")
    assert first.flags[0] == second.flags[0]


def test_a_changed_bundle_gets_a_new_child(process: ModelProcess, bundle: Path) -> None:
    """A bundle that was replaced on disk is never run with the old one's code."""
    first = process.run(order("one", bundle), timeout=30)
    (bundle / "hilum.yaml").write_text("another")
    assert process.run(order("two", bundle), timeout=30).flags[0] != first.flags[0]


def test_a_child_that_died_between_jobs_is_replaced(process: ModelProcess, bundle: Path) -> None:
    """Its death is no fault of the next job."""
    first = process.run(order("dies later", bundle), timeout=30)
    psutil.wait_procs([psutil.Process(int(first.flags[0]))], timeout=10)
    assert process.run(order("two", bundle), timeout=30).job_id == "two"


def test_credentials_are_not_handed_down(process: ModelProcess, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model sees neither the ledger's nor the broker's secrets."""
    monkeypatch.setenv("HILUM_LEDGER_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HILUM_TORCH_THREADS", "2")
    names = process.run(order("one", bundle), timeout=30).flags
    assert "HILUM_TORCH_THREADS" in names
    assert not {"HILUM_LEDGER_URL", "AWS_SECRET_ACCESS_KEY"} & set(names)


def test_an_order_larger_than_a_pipe_arrives(process: ModelProcess, bundle: Path) -> None:
    """Thousands of inputs are more than a pipe holds."""
    assert process.run(order("one", bundle, inputs=5000), timeout=30).flags[-1] == "5000"


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ("segfault", ModelCrashed, "the model's process was killed by signal 11 (SIGSEGV) during infer"),
        ("killed", ModelOutOfMemory, "the model's process was killed (SIGKILL) during infer: probably out of memory"),
        ("exits", ModelCrashed, "the model's process ended with exit status 3 during infer"),
        ("orphan", ModelCrashed, "the model's process ended with exit status 4 during infer"),
        ("closes", ModelCrashed, "the model's process closed its answers during infer"),
        ("nonsense", ModelCrashed, "the model's process said something unknown during infer"),
        ("kind", ModelCrashed, "the model's process said something unknown during infer"),
        ("other", ModelCrashed, "the model's process answered for another job"),
        ("forges", ModelCrashed, "the model's process answered with a result object that is no file of its folder"),
        ("fills", ModelDenied, "the model filled its scratch of 1 MiB during infer"),
        ("memory", ModelOutOfMemory, "the model's process ran out of memory during infer"),
        ("bundle", BundleInvalid, "the bundle is wrong"),
    ],
)
def test_each_end_has_its_error_and_sentence(
    process: ModelProcess, bundle: Path, what: str, error: type[Exception], sentence: str
) -> None:
    """Every way to die is told apart, and the next job works."""
    with pytest.raises(error) as caught:
        process.run(order(what, bundle), timeout=30)
    assert str(caught.value) == sentence
    assert process.run(order("next", bundle), timeout=30).job_id == "next"


def test_a_model_that_hangs_is_ended_at_its_limit(process: ModelProcess, bundle: Path) -> None:
    """The error names the limit and the stage."""
    with pytest.raises(ModelTimedOut, match=r"time limit of 1\.5 s during infer"):
        process.run(order("hangs", bundle), timeout=1.5)


@pytest.mark.parametrize(("what", "error"), [("children", ModelTimedOut), ("orphan", ModelCrashed)])
def test_processes_the_model_started_end_with_it(
    process: ModelProcess, bundle: Path, what: str, error: type[Exception]
) -> None:
    """Neither a time-out nor a crash leaves a grandchild behind."""
    with pytest.raises(error):
        process.run(order(what, bundle), timeout=2)
    assert _gone(int((bundle.parent / "pid").read_text()))


def test_waiting_can_be_broken_off(process: ModelProcess, bundle: Path) -> None:
    """What the caller raises while it waits (a lost lease) passes through, and the child is killed."""
    seen: list[int] = []
    others = {each.pid for each in psutil.Process().children()}

    class LeaseGone(Exception):
        pass

    def on_wait() -> None:
        seen.extend(each.pid for each in psutil.Process().children() if each.pid not in others)
        raise LeaseGone

    with pytest.raises(LeaseGone):
        process.run(order("hangs", bundle), timeout=30, on_wait=on_wait)
    assert seen
    assert all(_gone(pid) for pid in seen)


def test_stages_are_told_as_they_begin(child: list[str], bundle: Path, tmp_path: Path) -> None:
    """The caller can show how far a job is."""
    stages: list[str] = []
    process = ModelProcess(room(tmp_path), stages.append, command=child)
    process.run(order("one", bundle), timeout=30)
    process.close()
    assert stages == ["infer"]


def test_closing_ends_the_child(process: ModelProcess, bundle: Path) -> None:
    """And closing again is no error."""
    pid = int(process.run(order("one", bundle), timeout=30).flags[0])
    process.close()
    process.close()
    assert _gone(pid)


def test_a_child_that_cannot_be_started_is_an_error(bundle: Path, tmp_path: Path) -> None:
    """Not an exception that nobody expects."""
    with pytest.raises(ModelCrashed, match="cannot be started"):
        ModelProcess(room(tmp_path), command=["/nonexistent/python"]).run(order("one", bundle), timeout=5)


def _gone(pid: int) -> bool:
    """Whether a process is dead; one of another parent's may be waiting to be reaped."""
    try:
        found = psutil.Process(pid)
        psutil.wait_procs([found], timeout=10)
        return not found.is_running() or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
