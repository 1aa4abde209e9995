"""The folder in which a model's process may write, seen from outside: whatever lies there is a stranger's work.

Nothing here follows a link, recurses, or trusts a mode: a folder may be nested ten thousand deep, closed to its owner, or
full of empty files.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path

from gateway.domain.errors import ModelDenied

_DEEPEST = 32  # folders within folders
_LEAST = 4096  # bytes; an empty file takes its place too


def taken(folder: Path, limit: int) -> int:
    """Bytes that everything beneath takes; counting ends when they are more than ``limit``.

    Raises ModelDenied where a folder cannot be looked into, or lies too deep.
    """
    total, waiting = 0, [(str(folder), 0)]
    while waiting and total <= limit:
        place, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ModelDenied(f"the model nested more than {_DEEPEST} folders in its scratch")
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    total += _blocks(entry)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
                    if total > limit:
                        break
        except (FileNotFoundError, NotADirectoryError):  # gone in the meantime
            continue
        except OSError as error:
            raise ModelDenied(f"the model hid a folder in its scratch ({error.strerror})") from error
    return total


def nameless(process: int, folder: Path) -> int:
    """Bytes of files that a process holds open and that have no name any more, or never had one.

    Raises ModelDenied where it has mapped one from the folder, whose size nobody can see.
    """
    held: dict[tuple[int, int], int] = {}
    with contextlib.suppress(OSError):  # it is gone, or is not ours to look at
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found = entry.stat()
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    held[found.st_dev, found.st_ino] = found.st_blocks * 512
    with contextlib.suppress(OSError), Path(f"/proc/{process}/maps").open(errors="replace") as maps:
        if any(f" {folder}/" in line and line.endswith("(deleted)\n") for line in maps):
            raise ModelDenied("the model hid a file of its scratch in memory")
    return sum(held.values())


def threads(process: int) -> int:
    """How many threads a process has; 0 when it is gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{process}/task").iterdir())
    except OSError:
        return 0


def clear(folder: Path, keep: Path | None = None) -> None:
    """Takes away everything in a folder but one entry of it; what cannot be taken away stays.

    Folders are not taken apart from the bottom, which may be too far down to be named: what is in one is lifted up first.
    """
    mark, number = uuid.uuid4().hex, 0
    stuck: set[str] = {str(keep)} if keep else set()
    while entries := [entry for entry in _listed(folder) if entry.path not in stuck]:
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    Path(entry.path).unlink()
                    continue
                Path(entry.path).chmod(0o700)
                for inner in _listed(Path(entry.path)):
                    number += 1
                    Path(inner.path).rename(folder / f"{mark}-{number}")
                Path(entry.path).rmdir()
            except OSError:
                stuck.add(entry.path)


def remove(path: Path) -> None:
    """Takes a folder away with all that is in it, or whatever has taken its place."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            clear(path)
            path.rmdir()
        else:
            path.unlink()


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return max(entry.stat(follow_symlinks=False).st_blocks * 512, _LEAST)
    except FileNotFoundError:
        return 0


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
