"""Files on the local disk: durable before anybody is told, named by digests only."""

# Plain strings for what is done with every instance: Path objects cost more than the system calls they are for.
# ruff: noqa: PTH104, PTH108, PTH116, PTH120

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.domain.errors import NotFound, StorageFull
from gateway.domain.ids import digest

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")
_MOST_PIECES = 1024  # of one system call (IOV_MAX)
_WRITE_BACK = 256 * 1024  # bytes after which the disk begins to write, so that the end has little to wait for
_SYNC_FILE_RANGE_WRITE = 2


class LocalSpool:
    """Implements `gateway.domain.ports.Spool` on a directory."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._temporary = root / "tmp"
        self._places = str(self._objects), f"{self._temporary}/{_owner(os.getpid())}{uuid.uuid4().hex}"
        self._numbers = itertools.count()
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

    def sweep(self, process: int | None = None) -> int:
        """Removes what a crash left half-written, of a process that has died or of all; returns how many files."""
        leftovers = list(self._temporary.glob("*" if process is None else f"{_owner(process)}*"))
        for file in leftovers:
            file.unlink() if file.is_file() else shutil.rmtree(file)
        return len(leftovers)

    def put(self, name: str, chunks: Sequence[bytes | memoryview]) -> str:
        """Writes a file durably and returns its key: content, then name, then directory are on disk when it returns.

        Raises StorageFull when the disk has no room; nothing is left behind then.
        """
        file = self.begin()
        try:
            for chunk in chunks:
                file.write(chunk)
            return file.seal(name)
        finally:
            file.discard()

    def begin(self, *, durable: bool = True) -> LocalFile:
        """A file that comes in piece by piece; raises StorageFull. Not durable means: it may be lost with the power."""
        objects, temporary = self._places
        return LocalFile(f"{temporary}.{next(self._numbers)}", objects, durable)

    def remove(self, key: str) -> None:
        """Removes a file that no record names."""
        self.path(key).unlink(missing_ok=True)

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
        status = os.statvfs(self._places[0])
        free = status.f_bavail * status.f_frsize
        return free, free + (status.f_blocks - status.f_bfree) * status.f_frsize

    def room(self) -> float:
        """The free part of the disk, from 0 to 1: of its bytes or of its files (inodes), whichever there is less of."""
        status = os.statvfs(self._places[0])
        bytes_for_users = status.f_bavail + status.f_blocks - status.f_bfree
        files_for_users = status.f_favail + status.f_files - status.f_ffree  # none where the file system does not count
        of_bytes = status.f_bavail / bytes_for_users if bytes_for_users else 0.0
        return min(of_bytes, status.f_favail / files_for_users if files_for_users else 1.0)


class LocalFile:
    """Implements `gateway.domain.ports.SpoolFile`."""

    def __init__(self, temporary: str, objects: str, durable: bool) -> None:
        self._temporary, self._objects, self._durable = temporary, objects, durable
        self._size = self._behind = 0  # bytes written, and how many of them the disk has been told to write
        self._handle = -1
        try:
            self._handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _no_room(error) from error

    def write(self, *pieces: bytes | memoryview) -> None:
        """Appends; raises StorageFull."""
        try:
            whole = sum(map(len, pieces))
            written = os.writev(self._handle, pieces) if len(pieces) <= _MOST_PIECES else 0
            if written < whole:
                self._rest(b"".join(pieces), written)
            self._size += whole
            if self._durable and self._size - self._behind >= _WRITE_BACK:
                _write_back(self._handle, self._behind, self._size - self._behind)
                self._behind = self._size
        except OSError as error:
            raise _no_room(error) from error

    def _rest(self, data: bytes, written: int) -> None:
        view = memoryview(data)[written:]
        while view:
            view = view[os.write(self._handle, view) :]

    def view(self, start: int) -> memoryview:
        """What has been written from a place on, without reading it into memory."""
        return memoryview(mmap.mmap(self._handle, self._size, prot=mmap.PROT_READ))[start:]

    def seal(self, name: str) -> str:
        """Gives it its name and returns its key; durable when it returns. Raises StorageFull."""
        hexes = digest(name)
        key = f"{hexes[:2]}/{hexes}"
        final = f"{self._objects}/{key}"
        try:
            self._seal_durably(final) if self._durable else os.rename(self._temporary, final)
        except OSError as error:
            raise _no_room(error) from error
        finally:
            self.discard()
        return key

    def discard(self) -> None:
        """Lets go of the file; one that has no name yet is gone."""
        if self._handle < 0:
            return
        os.close(self._handle)
        self._handle = -1
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def _seal_durably(self, final: str) -> None:
        try:
            # Named first, one commit of the file system's journal makes content and name durable. Nobody looks for
            # the file before the ledger knows it. A file that is there already may be known: it is never replaced
            # by one that is not on disk.
            os.link(self._temporary, final)
        except OSError:
            os.fdatasync(self._handle)
            os.rename(self._temporary, final)
            _sync_directory(os.path.dirname(final))
            return
        try:
            os.fdatasync(self._handle)
            _sync_directory(os.path.dirname(final))
        except OSError:
            with suppress(OSError):
                if os.path.samestat(os.stat(final), os.fstat(self._handle)):
                    os.unlink(final)
            raise


def _owner(process: int) -> str:
    """How the names of its half-written files begin."""
    return f"{process}-"


def _find_write_back() -> Callable[[int, int, int], None]:
    """How the disk is told to begin to write: nobody waits, and what is written stays in memory for its readers.

    An error of that writing is not lost: ``fdatasync`` reports it.
    """
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is None:  # not Linux
        return lambda _handle, _start, _count: None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda handle, start, count: call(handle, start, count, _SYNC_FILE_RANGE_WRITE)


_write_back = _find_write_back()


def _no_room(error: OSError) -> StorageFull:
    return StorageFull(f"cannot write to the spool: {error.strerror}")


def _sync_directory(directory: Path | str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
