"""Files: durable, named by digests, nothing left behind when there is no room."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from gateway.domain.errors import NotFound, StorageFull
from gateway.store.spool import LocalSpool


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_content_comes_back(tmp_path: Path) -> None:
    """Chunks of any kind are one file, found by its key."""
    spool = LocalSpool(tmp_path)
    key = spool.put("1.2.3 digest", [b"ab", memoryview(b"cd"), b"", memoryview(bytearray(b"ef"))])
    assert spool.path(key).read_bytes() == b"abcdef"
    assert LocalSpool(tmp_path).path(key).read_bytes() == b"abcdef"


def test_the_same_name_is_the_same_file(tmp_path: Path) -> None:
    """A name written again replaces the file in one step, and other names have other files."""
    spool = LocalSpool(tmp_path)
    assert spool.put("a", [b"1"]) == spool.put("a", [b"2"]) != spool.put("b", [b"3"])
    assert spool.path(spool.put("a", [b"4"])).read_bytes() == b"4"
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0b", "a\nb", "x" * 5000, "", "姓名"])
def test_names_on_disk_are_digests_only(tmp_path: Path, name: str) -> None:
    """No text from the wire becomes part of a path."""
    LocalSpool(tmp_path / "spool").put(name, [b"x"])
    assert re.fullmatch(r"spool/objects/[0-9a-f]{2}/[0-9a-f]{64}", "\n".join(files(tmp_path)))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "..",
        "../x",
        "/etc/passwd",
        "ab/../../x",
        "AB/" + "a" * 64,
        "ab/" + "a" * 63,
        "ab/" + "a" * 64 + "\n",
        "ab/" + "a" * 64,
    ],
)
def test_what_is_no_key(tmp_path: Path, key: str) -> None:
    """A key of another form, or of no file, is not found."""
    with pytest.raises(NotFound):
        LocalSpool(tmp_path).path(key)


def test_leftovers_are_swept(tmp_path: Path) -> None:
    """What a crash left half-written goes at the next start; what is whole stays."""
    spool = LocalSpool(tmp_path)
    key = spool.put("a", [b"1"])
    (tmp_path / "tmp" / "half").write_bytes(b"x")
    (tmp_path / "tmp" / "job").mkdir()
    assert LocalSpool(tmp_path).sweep() == 2
    assert not list((tmp_path / "tmp").iterdir())
    assert spool.path(key).read_bytes() == b"1"


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    """Also an error that is no lack of room takes the half-written file away."""
    with pytest.raises(TypeError):
        LocalSpool(tmp_path).put("a", [b"begin", "text"])  # type: ignore[list-item]
    assert files(tmp_path) == []


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    """A file where the directory should be is one sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFull, match="cannot be kept in"):
        LocalSpool(tmp_path / "file")


def test_many_writers_of_one_name(tmp_path: Path) -> None:
    """Writers of the same file at once never show anybody half of it."""
    spool = LocalSpool(tmp_path)
    contents = [bytes([number]) * 200_000 for number in range(8)]
    key = spool.put("same", [contents[0]])
    seen: set[bytes] = set()
    writers = [threading.Thread(target=spool.put, args=("same", [content])) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.add(spool.path(key).read_bytes())
    assert seen <= set(contents)
    assert not list((tmp_path / "tmp").iterdir())


NO_FILES = """
    import pathlib, subprocess, sys
    from gateway.domain.errors import StorageFull
    from gateway.store.spool import LocalSpool
    root = pathlib.Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=400", "hilum-test", root], check=True)
    spool = LocalSpool(root / "spool")
    free, total = spool.free()
    assert free / total > 0.9 and 0.2 < spool.room() < 0.4, spool.room()
    for number in range(100):
        spool.put(f"file {number}", [b"x"])
    assert free / total > 0.9 and spool.room() < 0.2, "files run out long before bytes do"
    print("good")
"""


FULL = """
    import pathlib, subprocess, sys
    from gateway.domain.errors import StorageFull
    from gateway.store.spool import LocalSpool
    root = pathlib.Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "hilum-test", root], check=True)
    spool = LocalSpool(root / "spool")
    kept = [spool.put("first", [bytes(1_000_000)])]
    free, total = spool.free()
    assert 1_000_000 < free < 2_500_000 < total < 4_000_000, (free, total)
    assert abs(spool.room() - free / total) < 0.01
    for _ in range(2):
        try:
            spool.put("second", [bytes(100), memoryview(bytes(4_000_000))])
        except StorageFull as error:
            assert "No space left" in error.message, error.message
        else:
            raise SystemExit("stored more than there is room for")
        assert not list((root / "spool" / "tmp").iterdir())
    assert [path.stat().st_size for path in (root / "spool" / "objects").rglob("*") if path.is_file()] == [1_000_000]
    kept.append(spool.put("third", [bytes(500_000)]))
    assert all(spool.path(key).is_file() for key in kept)
    print("good")
"""


@pytest.mark.parametrize("script", [FULL, NO_FILES], ids=["bytes", "files"])
def test_a_full_disk(tmp_path: Path, script: str) -> None:
    """On a disk of 3 MB what does not fit raises StorageFull, leaves nothing, and what fits is still taken; on one that has
    room for few files, that is the room there is."""
    as_root = [] if os.getuid() == 0 else ["--map-root-user"]
    command = [
        "unshare",
        *as_root,
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        textwrap.dedent(script),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "good\n", done.stderr
