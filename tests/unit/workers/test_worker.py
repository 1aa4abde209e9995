"""What a worker keeps of a job."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gateway.domain.messages import Outcome
from gateway.store.spool import LocalSpool
from tests.support.outcomes import outcome, result_object
from workers.worker import keep_objects


def _made(folder: Path, content: bytes) -> Outcome:
    """An outcome with one object of this content."""
    (folder / "seg.dcm").write_bytes(content)
    item = result_object("seg", "2.25.1")
    digest = hashlib.sha256(content).hexdigest()
    return outcome(objects=(type(item)(**{**vars(item), "file": "seg.dcm", "sha256": digest}),))


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
