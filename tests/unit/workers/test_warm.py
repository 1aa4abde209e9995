"""Which models stay open: against children that hold as much memory as they are told, and load no library."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gateway.domain.errors import ModelCrashed
from gateway.domain.messages import JobOrder
from workers.memory import free_and_total_mib, held_mib, peak_mib
from workers.warm import WarmModels

CHILD = """
import json, os, sys
MODEL = {"name": "m", "version": "1", "digest": "d", "device_uid": "2.25.1", "manufacturer": "h"}
for line in sys.stdin:
    order = json.loads(line)
    if order["job_id"] == "dies": os._exit(3)
    kept = None
    kept = b"x" * (int(order["job_id"]) * 2**20)
    out = {"job_id": order["job_id"], "status": "complete", "model": MODEL, "flags": [str(os.getpid())], "version": 1}
    print(json.dumps({"outcome": out}), flush=True)
"""

Make = Callable[[int | None], WarmModels]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Models that may hold so many MiB together."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    (tmp_path / "bundle").mkdir()
    made: list[WarmModels] = []

    def warm(memory_mib: int | None) -> WarmModels:
        models = WarmModels(tmp_path / "work", [], memory_mib=memory_mib, command=[sys.executable, str(script)])
        made.append(models)
        return models

    yield warm
    for models in made:
        models.close()


def work(models: WarmModels, digest: str, holds: int | str, tmp_path: Path, at_most: int = 0) -> int:
    """Has a model do a job that holds so many MiB, and returns the number of its process."""
    order = JobOrder(
        job_id=str(holds), bundle=str(tmp_path / "bundle"), inputs=(), output_dir=str(tmp_path), content_time=0.0
    )
    with models.at_work(digest, at_most) as model:
        return int(model.process.run(order, timeout=30).flags[0])


def test_the_one_used_longest_ago_makes_room(make: Make, tmp_path: Path) -> None:
    """Of three models of 100 MiB two fit: the third ends the first; used again, the first ends the second."""
    models = make(300)
    a, b = work(models, "a", 100, tmp_path), work(models, "b", 100, tmp_path)
    assert (work(models, "a", 100, tmp_path), work(models, "b", 100, tmp_path)) == (a, b)
    work(models, "c", 100, tmp_path, 120)
    assert models.loaded == {"b", "c"}
    assert not psutil.pid_exists(a)
    assert work(models, "b", 100, tmp_path, 120) == b
    assert work(models, "a", 100, tmp_path, 120) != a
    assert models.loaded == {"b", "a"}


def test_what_a_job_has_added(make: Make, tmp_path: Path) -> None:
    """A job that held more than any before it is known by that; of one that held less nothing is known."""
    models = make(None)
    peaks = []
    for holds in (50, 10, 100):
        work(models, "a", holds, tmp_path)
        with models.at_work("a", 0) as model:
            peaks.append(model.new_peak_mib())
    assert 50 < peaks[0] < 100 < peaks[2]
    assert peaks[1] == 0
    assert models.opened == 1
    assert [one.digest for one in models.open] == ["a"]


def test_too_little_for_any(make: Make, tmp_path: Path) -> None:
    """A job that needs more than there is still runs, alone."""
    models = make(1)
    for digest in ("a", "b", "a"):
        work(models, digest, 50, tmp_path, 50)
        assert models.loaded == {digest}


def test_what_is_free_decides_where_no_limit_is_set(make: Make, tmp_path: Path) -> None:
    """A model that could need more than the machine has left makes the others end; one that could not, does not."""
    models = make(None)
    work(models, "a", 1, tmp_path, 10)
    work(models, "b", 1, tmp_path, 10)
    assert models.loaded == {"a", "b"}
    work(models, "c", 1, tmp_path, 10**9)
    assert models.loaded == {"c"}


def test_one_that_died_is_forgotten_with_its_folder(make: Make, tmp_path: Path) -> None:
    """Its next job finds a new process, and nothing that it left; the others stay."""
    models = make(None)
    a, b = work(models, "a", 1, tmp_path), work(models, "b", 1, tmp_path)
    before = set((tmp_path / "work").iterdir())
    with pytest.raises(ModelCrashed):
        work(models, "a", "dies", tmp_path)
    assert models.loaded == {"b"}
    assert len(before - set((tmp_path / "work").iterdir())) == 1
    assert work(models, "a", 1, tmp_path) != a
    assert work(models, "b", 1, tmp_path) == b


def test_no_two_share_a_folder(make: Make, tmp_path: Path) -> None:
    """A model that waits reads nothing of another's job."""
    models = make(None)
    with models.at_work("a", 1) as one:
        pass
    with models.at_work("b", 1) as two:
        assert one.desk.folder != two.desk.folder
        for folder in (*two.desk.room([]).readable, two.desk.room([]).writable):
            assert one.desk.folder not in (folder, *folder.parents)


def test_memory_of_a_process() -> None:
    """What it holds, and the most it has held; nothing of one that is not there."""
    me = psutil.Process().pid
    kept = bytearray(b"x" * 100 * 2**20)
    assert held_mib(me) >= 100
    del kept
    assert peak_mib(me) >= 100
    assert (held_mib(2**22 + 1), peak_mib(2**22 + 1)) == (0, 0)


def test_a_container_has_what_its_group_leaves(tmp_path: Path) -> None:
    """The tightest group around the process counts; cached files can be dropped; no limit is none."""
    inner = tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "own").write_text("1:cpu:/x\n0::/outer/inner\n")
    for group, most, used, cached in ((inner.parent, 4096, 3000, 100), (inner, 8192, 1000, 0)):
        (group / "memory.max").write_text(f"{most * 2**20}\n")
        (group / "memory.current").write_text(f"{used * 2**20}\n")
        (group / "memory.stat").write_text(f"anon 1\ninactive_file {cached * 2**20}\n")
    free, total = free_and_total_mib(tmp_path / "groups", tmp_path / "own")
    assert (free, total) == (4096 - 3000 + 100 - 512, 4096 - 512)
    (inner.parent / "memory.max").write_text("max\n")
    assert free_and_total_mib(tmp_path / "groups", tmp_path / "own")[0] > free
