"""What a worker keeps of a job."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.domain.errors import ModelOutputInvalid
from gateway.domain.messages import Outcome
from gateway.store.spool import LocalSpool
from tests.support.outcomes import outcome, result_object
from workers.worker import keep_objects


def _made(folder: Path, content: bytes) -> Outcome:
    """An outcome with one object of this content."""
    (folder / "seg.dcm").write_bytes(content)
    item = result_object("seg", "2.25.1")
    digest = hashlib.sha256(content).hexdigest()
    return outcome(objects=(type(item)(**{**vars(item), "file": "seg.dcm", "sha256": digest, "size": len(content)}),))


def test_a_worker_that_comes_too_late_replaces_nothing(tmp_path: Path) -> None:
    """Two workers did the same job, and their objects differ in a bit: what the first one kept stays as it was."""
    spool = LocalSpool(tmp_path / "spool")
    (first,) = keep_objects(_made(tmp_path, b"first"), tmp_path, spool).objects
    (late,) = keep_objects(_made(tmp_path, b"later"), tmp_path, spool).objects
    assert spool.path(first.file).read_bytes() == b"first"
    assert spool.path(late.file).read_bytes() == b"later"


def test_the_same_objects_are_kept_once(tmp_path: Path) -> None:
    """Done again with the same result, there is one file."""
    spool = LocalSpool(tmp_path / "spool")
    assert keep_objects(_made(tmp_path, b"x"), tmp_path, spool) == keep_objects(_made(tmp_path, b"x"), tmp_path, spool)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b"other"),
        lambda file: file.write_bytes(b"judged and more"),
        lambda file: file.unlink(),
        lambda file: (file.rename(file.with_name("away")), file.symlink_to("away")),
        lambda file: (file.unlink(), os.mkfifo(file)),
    ],
    ids=["changed", "longer", "gone", "a link", "a pipe"],
)
def test_the_models_process_is_not_taken_at_its_word(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """A file that is not the one it told of is no result, and nothing is kept."""
    spool, made = LocalSpool(tmp_path / "spool"), _made(tmp_path, b"judged")
    spoil(tmp_path / "seg.dcm")
    with pytest.raises(ModelOutputInvalid):
        keep_objects(made, tmp_path, spool)
    assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    """A path out of the job's folder is no result."""
    (tmp_path / "job").mkdir()
    made = _made(tmp_path, b"secret")
    (item,) = made.objects
    outside = dataclasses.replace(made, objects=(dataclasses.replace(item, file="../seg.dcm"),))
    with pytest.raises(ModelOutputInvalid, match="outside"):
        keep_objects(outside, tmp_path / "job", LocalSpool(tmp_path / "spool"))
