"""Where a worker lays out what a model's process may see: the files of one job, and room for its results.

    scratch/HOST-PID/1/in/JOB/     hard links to the spool's files: the model reads these and nothing else of the spool
    scratch/HOST-PID/1/out/JOB/    result objects

Each process has a folder of its own, so that a model that waits sees nothing of another's job. It may write under `out`
only: a link that could be written would be a way into the spool.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from workers.sandbox.room import Room
from workers.scratch import remove


def own_folder(scratch: Path) -> Path:
    """An empty folder for this worker; those of workers of this machine that are gone are cleared."""
    host = socket.gethostname()
    for left in scratch.glob(f"{host}-*"):
        pid = left.name.removeprefix(f"{host}-")
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            remove(left)
    folder = scratch / f"{host}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Desk:
    """The folder of one model's process."""

    folder: Path

    @classmethod
    def lay_out(cls, folder: Path) -> Desk:
        """Makes an empty one."""
        for part in ("in", "out"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def room(self, bundles: Iterable[Path]) -> Room:
        """What the model's process is given."""
        return Room(readable=(self.folder / "in", *bundles), writable=self.folder / "out")

    def output(self, job: str) -> Path:
        """An empty folder for a job's result objects."""
        self.tidy(job)
        folder = self.folder / "out" / job
        folder.mkdir(parents=True)
        return folder

    def lay(self, job: str, file: Path, name: str = "") -> Path:
        """Puts one input of a job on the desk and returns where; loading finds out where the file is missing."""
        place = self.folder / "in" / job / (name or file.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                shutil.copyfile(file, place)  # another file system, or one without links
            elif error.errno not in (errno.EEXIST, errno.ENOENT):
                raise
        return place

    def tidy(self, job: str) -> None:
        """Takes a job's files away."""
        for part in ("in", "out"):
            remove(self.folder / part / job)

    def clear(self) -> None:
        """Takes everything away."""
        remove(self.folder)
