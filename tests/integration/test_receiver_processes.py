"""A gateway whose connections are served by several processes: `dicom.processes`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from sqlalchemy import text

from gateway.domain.ids import InstanceUID
from tests.benchmarks.sender import Item, Sending
from tests.support.certificates import Authority
from tests.support.node import dataset_digest, file
from tests.support.received import dataset, encode
from tests.support.site import Site


@contextmanager
def gateway(directory: Path, **dicom: object) -> Iterator[Site]:
    """A gateway with two receiver processes that are ready."""
    with Site(directory, {"dicom": {"processes": 2, **dicom}}, role="gateway") as site:
        site.wait_for(lambda: site.log.count("receiver process ready") == 2, "both receiver processes")
        yield site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One without further settings."""
    with gateway(tmp_path) as it:
        yield it


def item(number: int) -> Item:
    """A small image."""
    made = dataset(number)
    data = encode(made)
    return Item(str(made.SOPClassUID), str(made.SOPInstanceUID), str(ExplicitVRLittleEndian), [data])


def association(site: Site) -> Sending:
    """An association that is left open."""
    return Sending(site.port, "HILUM", str(MRImageStorage), str(ExplicitVRLittleEndian))


def served(site: Site) -> dict[int, int]:
    """Connections of each receiver process."""
    port = site.port
    return {
        pid: sum(one.laddr.port == port for one in psutil.Process(pid).net_connections("tcp"))
        for pid in site.status["receiver_pids"]
    }


def kept(site: Site, one: Item) -> bool:
    """Whether it is in the ledger, and whole on disk."""
    found = site.ledger.instance(InstanceUID(one.sop_instance_uid))
    if found is None:
        return False
    return dataset_digest(site.directory / "data" / "spool" / "objects" / found.file) == found.sha256


def ended(site: Site) -> Counter[str | None]:
    """How many associations have ended in which way; None for those that are open."""
    with site.ledger.engine.connect() as connection:
        return Counter(row[0] for row in connection.execute(text("select how from associations")))


def test_connections_are_shared_out(site: Site) -> None:
    """Both processes serve as many, the gateway itself none, and all that is stored by either is there."""
    with ExitStack() as open_ones:
        sending = [association(site) for _ in range(6)]
        for one in sending:
            open_ones.callback(one.close)
        assert sorted(served(site).values()) == [3, 3]
        items = [item(number) for number in range(1, 25)]
        for number, one in enumerate(items):
            assert sending[number % 6].store(one) == 0
        assert all(kept(site, one) for one in items)
        for each in sending:
            each.release()
    site.wait_for(lambda: ended(site) == {"released": 6}, "all associations to be released")
    site.wait_for(lambda: set(served(site).values()) == {0}, "both processes to be idle")


def test_one_that_is_killed_takes_no_other_with_it(site: Site) -> None:
    """Its associations end at once, for their peers and in the ledger; what it acknowledged is there; another takes its place."""
    first, second = association(site), association(site)
    before = served(site)
    assert first.store(item(1)) == 0
    assert second.store(item(2)) == 0
    (victim, _), _ = before.items()
    half = site.directory / "data" / "spool" / "tmp" / f"{victim}-half"
    half.write_bytes(b"half an image")
    os.kill(victim, signal.SIGKILL)
    site.wait_for(lambda: ended(site)["lost"] == 1, "the association to be lost")
    lost, other = _which_is_lost(first, second)
    with pytest.raises(OSError):
        lost.store(item(3))
    assert other.store(item(4)) == 0
    site.wait_for(lambda: site.log.count("receiver process ready") == 3, "its successor")
    assert victim not in site.status["receiver_pids"]
    assert not half.exists()
    again = association(site)
    assert again.store(item(3)) == 0
    assert set(served(site).values()) == {1}
    assert all(kept(site, item(number)) for number in (1, 2, 3, 4))
    for one in (other, again):
        one.release()


def _which_is_lost(first: Sending, second: Sending) -> tuple[Sending, Sending]:
    try:
        first.store(item(5))
    except OSError:
        return first, second
    return second, first


def test_the_limit_counts_for_all_processes(tmp_path: Path) -> None:
    """The gateway says yes or no to each association, whichever process asks; one that has ended makes room."""
    with gateway(tmp_path, max_associations=2) as site:
        first, second = association(site), association(site)
        with pytest.raises(ConnectionError, match="PDU 3"):  # A-ASSOCIATE-RJ
            association(site)
        first.release()
        site.wait_for(lambda: ended(site)["released"] == 1, "the first to be released")
        third = association(site)
        assert third.store(item(1)) == 0
        for one in (second, third):
            one.release()


def test_one_that_stands_still_is_passed_by(site: Site) -> None:
    """A process that reads no messages keeps its own connections waiting, and gets no more than it holds already."""
    held = association(site)
    [(still, _)] = [entry for entry in served(site).items() if entry[1]]
    os.kill(still, signal.SIGSTOP)
    try:
        other = association(site)  # the other process has none, so it comes first
        assert other.store(item(1)) == 0
        other.release()
    finally:
        os.kill(still, signal.SIGCONT)
    assert held.store(item(2)) == 0
    held.release()


def test_a_stop_ends_what_is_open(tmp_path: Path) -> None:
    """In good order and soon, with associations open; the next start finds nothing to recover."""
    with gateway(tmp_path) as site:
        open_one = association(site)
        assert open_one.store(item(1)) == 0
        processes = [psutil.Process(pid) for pid in site.status["receiver_pids"]]
        began = time.monotonic()
        assert site.stop() == 0
        assert time.monotonic() - began < 15
        assert not [process for process in processes if process.is_running()]
        assert kept(site, item(1))
        assert ended(site) == {"lost": 1}


def test_the_gateway_dies(site: Site) -> None:
    """Its receiver processes go with it, and leave the port to the next."""
    first = association(site)
    assert first.store(item(1)) == 0
    processes = [psutil.Process(pid) for pid in site.status["receiver_pids"]]
    site.kill_gateway()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    site.start()
    assert kept(site, item(1))
    again = association(site)
    assert again.store(item(2)) == 0
    again.release()


def test_tls_is_spoken_by_them(tmp_path: Path) -> None:
    """DCMTK stores over TLS with the certificate that is asked for, and gets nowhere without it."""
    authority = Authority(tmp_path)
    with gateway(tmp_path / "site", tls=authority.server_settings()) as site:
        source = file(tmp_path / "image.dcm")
        trust = [
            "+cf",
            str(tmp_path / "ca.pem"),
            "-to",
            "10",
            "-aec",
            "HILUM",
            "127.0.0.1",
            str(site.port),
            str(source),
        ]
        for name, expected in (("ct1", True), ("stranger", False), ("ct2", True)):
            shown = [str(tmp_path / f"{name}.{end}") for end in ("key", "pem")]
            done = subprocess.run(["storescu", "+tls", *shown, *trust], capture_output=True, timeout=60)
            assert (done.returncode == 0) is expected, name
        assert kept(site, item(1))
