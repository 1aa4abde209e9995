"""Faults of the machine under the DICOM node, real ones: a locked ledger, a full disk, files that may grow no more."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event

from gateway.deliver.dimse import rejection_of
from tests.support.node import EXPLICIT, Make, Site, associate, send, wait
from tests.support.received import SERIES, dataset

SENDERS = 6


def _impatient(site: Site) -> None:
    """Its ledger waits a moment for a lock instead of five seconds."""

    @event.listens_for(site.ledger.engine, "connect")
    def _wait(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=200")

    site.ledger.engine.dispose()


def test_a_locked_ledger(make: Make) -> None:
    """Nobody is acknowledged while it is locked, everybody hears of it, and all goes on when it is free: F28."""
    site = make()
    _impatient(site)
    held = [associate(site, EXPLICIT) for _ in range(SENDERS)]
    assert send(held[0], dataset(99)).Status == 0x0000
    other = sqlite3.connect(site.ledger.engine.url.database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with ThreadPoolExecutor(SENDERS) as senders:
        answers = list(senders.map(lambda number: send(held[number], dataset(number)), range(SENDERS)))
    assert {answer.Status for answer in answers} == {0xA700}
    assert {answer.ErrorComment for answer in answers} == {"the ledger cannot be used: database is locked"}
    assert rejection_of(associate(site, EXPLICIT))
    assert [study["instances"] for study in site.ledger.list_studies()] == [1]
    held.pop().release()  # its end cannot be written down now
    other.execute("ROLLBACK")
    other.close()
    for number, association in enumerate(held):
        assert send(association, dataset(number)).Status == 0x0000
        association.release()
    for number in range(SENDERS - 1):
        assert site.digest(f"{SERIES}.{number}") is not None
    wait(lambda: site.ledger.list_studies()[0]["open_associations"] == 0)


LIMITED = """
    import hashlib, pathlib, resource, subprocess, sys
    from gateway.receive.settings import DicomSettings
    from tests.support.node import EXPLICIT, Site, associate, associations, send, wait
    from tests.support.received import SERIES, dataset, encode

    root, limit = pathlib.Path(sys.argv[1]), sys.argv[2]
    if limit == "disk":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "hilum-test", root], check=True)
        (root / "ballast").write_bytes(bytes(8 << 20))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    settings = DicomSettings(port=0, refuse_new_below=0.0, refuse_all_below=0.0)
    site = Site(root, settings)
    acknowledged = {}

    def store(association, number, size):
        made = dataset(number)
        data = encode(made) + b"\\xe0\\x7f\\x10\\0OB\\0\\0" + size.to_bytes(4, "little") + number.to_bytes(1, "little") * size
        answer = send(association, made, raw=data)
        if answer.Status == 0:
            acknowledged[made.SOPInstanceUID] = hashlib.sha256(data).hexdigest()
        return answer

    def judge():
        assert list(site.spool._temporary.iterdir()) == []
        assert {uid: site.digest(uid) for uid in acknowledged} == acknowledged
        assert sum(study["instances"] for study in site.ledger.list_studies()) == len(acknowledged)
        files = [path for path in site.spool._objects.rglob("*") if path.is_file()]
        assert len(files) == len(acknowledged), "something is left of what was refused"

    association = associate(site, EXPLICIT)
    if limit == "disk":
        answers = [store(association, number, 1 << 20) for number in range(1, 20)]
        refused = [answer for answer in answers if answer.Status]
        assert len(acknowledged) > 3 and len(refused) > 3
    else:
        assert store(association, 1, 1000).Status == 0
        refused = [store(association, 2, 3 << 20), store(association, 3, 2 << 20)]
    assert {answer.Status for answer in refused} == {0xA700}
    said = "No space left on device" if limit == "disk" else "File too large"
    assert any(said in answer.ErrorComment for answer in refused), refused
    judge()
    (root / "ballast").unlink(missing_ok=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    assert store(association, 100, 200_000).Status == 0
    judge()
    association.release()
    wait(lambda: not associations())
    site.close()
    print("good")
"""


@pytest.mark.parametrize("limit", ["disk", "file size"])
def test_no_more_room(tmp_path: Path, limit: str) -> None:
    """ENOSPC on a disk of 24 MB, EFBIG at a file of 1 MB: 0xA700, nothing is left of it, and the next that fits is taken: F25."""
    apart = ["unshare", *([] if os.getuid() == 0 else ["--map-root-user"]), "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*(apart if limit == "disk" else []), sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path), limit],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.endswith("good\n"), done.stderr[-3000:]
