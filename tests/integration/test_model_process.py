"""The real child process with real bundles: what dies, what is limited, what is kept apart."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from gateway.domain.errors import ModelCrashed, ModelDenied, ModelOutOfMemory
from gateway.domain.messages import JobOrder, Outcome, from_json, to_json
from tests.support.bundles import write_bundle
from tests.support.series import axial, job_order, write_series
from workers.sandbox.room import Room
from workers.supervisor import ModelProcess

VOXELS = np.zeros((8, 24, 24))
VOXELS[2:5, 6:14, 4:10] = 900
VOXELS += np.arange(24)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ModelProcess]:
    """A supervisor of real children, which may read all that the test makes, and write in one folder."""
    made = ModelProcess(Room(readable=(tmp_path,), writable=tmp_path / "out", scratch_mib=64))
    yield made
    made.close()


def order(tmp_path: Path, behaviour: str, *, memory_mib: int = 2048) -> JobOrder:
    """A job on a bundle that behaves so."""
    paths = write_series(tmp_path / f"in-{behaviour}", VOXELS, axial(VOXELS.shape))
    bundle = write_bundle(tmp_path / behaviour, behaviour, memory_mib=memory_mib)
    return job_order(paths, bundle, tmp_path / f"out/{behaviour}")


def test_a_model_that_prints_does_not_break_the_protocol(process: ModelProcess, tmp_path: Path) -> None:
    """Through Python, and past it."""
    outcome = process.run(order(tmp_path, "prints"), timeout=120)
    assert outcome.status == "complete"
    assert [segment.voxels for segment in outcome.segments] == [144]


def test_a_model_that_crashes_once_works_the_second_time(process: ModelProcess, tmp_path: Path) -> None:
    """The crash is reported, and the next try gets a new process."""
    made = order(tmp_path, "crash_once")
    with pytest.raises(ModelCrashed, match=r"SIGSEGV.* during infer"):
        process.run(made, timeout=120)
    assert process.run(made, timeout=120).status == "complete"


def test_a_model_without_bounds_meets_the_limit_of_its_manifest(process: ModelProcess, tmp_path: Path) -> None:
    """It is told from a crash, and the machine's memory is not touched."""
    with pytest.raises(ModelOutOfMemory, match="ran out of memory during infer"):
        process.run(order(tmp_path, "oom", memory_mib=512), timeout=120)


def test_windows_are_as_many_as_the_limit_takes(process: ModelProcess, tmp_path: Path) -> None:
    """Eight at once would need twice the limit: fewer are taken before any has failed, and the provenance says so."""
    made = order(tmp_path, "threshold", memory_mib=1024)
    bundle = Path(made.bundle)
    script, file = bundle / "scripts/network.py", bundle / "configs/inference.json"
    script.write_text(
        script.read_text().replace("pass\n", "image = image.repeat(1, 512, 1, 1, 1).mean(1, keepdim=True)\n")
    )
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": [64, 64, 64], "sw_batch_size": 8}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"inferer": inferer}))
    outcome = process.run(made, timeout=120)
    assert [segment.voxels for segment in outcome.segments] == [144]
    assert re.fullmatch("window batch [12] by free memory", outcome.provenance["memory"])


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Even a parent that is killed leaves no model running."""
    parent = run_once(tmp_path, order(tmp_path, "hang"))
    assert parent.stdout
    while '"infer"' not in parent.stdout.readline():
        assert parent.poll() is None
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert all(child.status() == psutil.STATUS_ZOMBIE for child in alive)


@pytest.mark.parametrize(("behaviour", "status"), [("threshold", 0), ("nan", 1), ("exits", 1)])
def test_one_job_from_the_command_line(tmp_path: Path, behaviour: str, status: int) -> None:
    """Stages, then outcome or error, a line of JSON each; and the exit status says which."""
    parent = run_once(tmp_path, order(tmp_path, behaviour))
    *stages, answer = [json.loads(line) for line in parent.communicate(timeout=120)[0].splitlines()]
    assert parent.returncode == status
    assert {"stage": "infer"} in stages
    if behaviour == "exits":
        assert answer == {"error": "the model's process ended with exit status 3 during infer", "kind": "ModelCrashed"}
    else:
        outcome = from_json(Outcome, json.dumps(answer["outcome"]))
        assert outcome.status == ("complete" if status == 0 else "refused")
        folder = tmp_path / "desk/out" / outcome.job_id
        assert sorted(item.file for item in outcome.objects) == sorted(path.name for path in folder.iterdir())


def test_no_order_from_the_command_line(tmp_path: Path) -> None:
    """A caller that changes its mind is told so, and no model's process is left."""
    parent = run_once(tmp_path, order(tmp_path, "threshold"), line="no order")
    said = json.loads(parent.communicate(timeout=120)[0])
    assert parent.returncode == 2
    assert said["error"].startswith("no job order on standard input")


def run_once(tmp_path: Path, made: JobOrder, line: str = "") -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-m", "workers.run_once", made.bundle, str(tmp_path / "desk")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin
    parent.stdin.write((line or to_json(made)) + "\n")
    parent.stdin.flush()
    return parent


def test_bundles_are_verified_from_the_command_line(tmp_path: Path) -> None:
    """A good one and a bad one: one answer each, and the exit status of the bad one."""
    good, bad = write_bundle(tmp_path / "good"), write_bundle(tmp_path / "bad")
    (bad / "models/model.safetensors").write_bytes(b"something else")
    ran = subprocess.run(
        [sys.executable, "-m", "workers.models", "verify", str(good), str(bad), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    first, second = json.loads(ran.stdout)
    assert ran.returncode == 2
    assert first["ok"] is True
    assert "not the ones its manifest pins" in second["error"]


def confined(tmp_path: Path, *orders: JobOrder) -> ModelProcess:
    """A supervisor whose children may read these jobs' bundles and images, and nothing else."""
    readable = [Path(path) for each in orders for path in (each.bundle, Path(each.inputs[0].path).parent)]
    return ModelProcess(Room(readable=tuple(readable), writable=tmp_path / "out", scratch_mib=64))


def test_no_way_out(tmp_path: Path) -> None:
    """A model that tries everything and swallows the errors could do none of it, and its job goes on."""
    made = order(tmp_path, "escapes")
    process = confined(tmp_path, made)
    try:
        assert process.run(made, timeout=120).status == "complete"
    finally:
        process.close()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("behaviour", "error", "sentence"),
    [
        ("reads", ModelDenied, "the model's sandbox stopped it during infer: Permission denied"),
        ("fills", ModelDenied, "the model filled its scratch of 64 MiB during infer"),
        ("huge", ModelOutOfMemory, "the model's process ran out of memory during infer"),
        ("shared", ModelOutOfMemory, "the model's process ran out of memory during infer"),
        ("litters", ModelDenied, "the model filled its scratch of 64 MiB during infer"),
        ("nameless", ModelDenied, "the model filled its scratch of 64 MiB during infer"),
        ("buries", ModelDenied, "the model nested more than 32 folders in its scratch"),
        ("threads", ModelDenied, "the model started more than 2048 threads during infer"),
        ("nests", ModelCrashed, "the model's process said something unknown during infer"),
        ("babbles", ModelCrashed, "the model's process said something unknown during infer"),
        ("usurps", ModelCrashed, "the model's process ended with exit status 3 during infer"),
    ],
)
def test_a_hostile_model_ends_with_its_reason(
    tmp_path: Path, behaviour: str, error: type[Exception], sentence: str
) -> None:
    """What it did is told, nobody else is harmed: the next job, in a new process with the same room, is fine."""
    hostile, good = order(tmp_path, behaviour), order(tmp_path, "threshold")
    process = confined(tmp_path, hostile, good)
    try:
        with pytest.raises(error, match=sentence):
            process.run(hostile, timeout=120)
        assert process.run(good, timeout=120).status == "complete"
    finally:
        process.close()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"threshold"}
