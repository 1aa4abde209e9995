"""Files on the local disk: durable before anybody is told, named by digests only."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from gateway.domain.errors import NotFound, StorageFull
from gateway.domain.ids import digest

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")


class LocalSpool:
    """Implements `gateway.domain.ports.Spool` on a directory."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._temporary = root / "tmp"
        try:
            self._make_directories(root)
        except OSError as error:
            raise StorageFull(f"the spool cannot be kept in {root}: {error.strerror}") from error

    def _make_directories(self, root: Path) -> None:
        """All directories are made, and are on disk, before the first file: no writer ever has to wait for one."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        for number in range(256):
            (self._objects / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        for directory in (self._objects, root, root.parent):
            _sync_directory(directory)

    def sweep(self) -> int:
        """Removes what a crash left half-written; returns how many files. Only for the one process that writes."""
        leftovers = list(self._temporary.iterdir())
        for file in leftovers:
            file.unlink() if file.is_file() else shutil.rmtree(file)
        return len(leftovers)

    def put(self, name: str, chunks: Sequence[bytes | memoryview]) -> str:
        """Writes a file durably and returns its key: content, then name, then directory are on disk when it returns.

        Raises StorageFull when the disk has no room; nothing is left behind then.
        """
        hexes = digest(name)
        key = f"{hexes[:2]}/{hexes}"
        temporary, final = self._temporary / uuid.uuid4().hex, self._objects / key
        try:
            self._write(temporary, chunks)
            temporary.rename(final)
            _sync_directory(final.parent)
        except OSError as error:
            raise StorageFull(f"cannot write to the spool: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)  # only there where something went wrong
        return key

    def path(self, key: str) -> Path:
        """The file of a key; raises NotFound for a key that is none or whose file is gone."""
        if not _KEY.fullmatch(key):
            raise NotFound("not a spool key")
        path = self._objects / key
        if not path.is_file():
            raise NotFound(f"spool file {key} is missing")
        return path

    def free(self) -> tuple[int, int]:
        """Free bytes, and the bytes the disk has for users, used and free."""
        status = os.statvfs(self._objects)
        free = status.f_bavail * status.f_frsize
        return free, free + (status.f_blocks - status.f_bfree) * status.f_frsize

    def _write(self, path: Path, chunks: Sequence[bytes | memoryview]) -> None:
        with path.open("xb", buffering=0) as file:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            # The length changes, so fdatasync also writes the metadata needed to read the file back.
            os.fdatasync(file.fileno())


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
