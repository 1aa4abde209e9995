"""What a worker lays out for a model, and what is left when workers die."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from workers.desk import Desk, own_folder


def test_inputs_are_links_that_the_model_may_not_write(tmp_path: Path) -> None:
    """No copy is made, and the folder of inputs is not beneath the one that is writable."""
    file = tmp_path / "spool" / "abc"
    file.parent.mkdir()
    file.write_bytes(b"pixels")
    desk = Desk.lay_out(tmp_path / "work" / "1")
    laid = desk.lay("job", file)
    room = desk.room([tmp_path / "bundle"])
    assert laid.samefile(file)
    assert room.writable not in laid.parents
    assert any(readable in laid.parents for readable in room.readable)
    assert desk.lay("job", file) == laid


def test_a_job_leaves_nothing(tmp_path: Path) -> None:
    """Neither its inputs' links nor its results; a file that is gone is found missing by loading, not here."""
    desk = Desk.lay_out(tmp_path / "work" / "1")
    (desk.output("job") / "seg.dcm").write_bytes(b"x")
    assert not desk.lay("job", tmp_path / "gone").exists()
    assert list(desk.output("job").iterdir()) == []
    desk.tidy("job")
    assert not any(path.is_file() for path in desk.folder.rglob("*"))


def test_desks_of_dead_workers_of_this_machine_are_cleared(tmp_path: Path) -> None:
    """Those of the living and of other machines stay."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = {name: tmp_path / name for name in (f"{socket.gethostname()}-{gone.pid}", "elsewhere-1")}
    names["parent"] = tmp_path / f"{socket.gethostname()}-{os.getppid()}"
    for folder in names.values():
        (folder / "in").mkdir(parents=True)
    assert own_folder(tmp_path).is_dir()
    assert [folder.exists() for folder in names.values()] == [False, True, True]


def test_whatever_a_model_has_made_of_its_folder_is_taken_away(tmp_path: Path) -> None:
    """A file in its place; folders deeper than any path may be long; one that is closed to everybody."""
    desk = Desk.lay_out(tmp_path / "work" / "1")
    folder = desk.output("job")
    folder.rmdir()
    folder.write_text("no folder")
    assert list(desk.output("job").iterdir()) == []
    here = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    (folder / "closed").mkdir(mode=0)
    desk.tidy("job")
    assert not folder.exists()
