"""What the DICOM port does with peers that are broken, slow, too many or hostile: each has its answer, none leaves anything."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context

from gateway.deliver.dimse import rejection_of
from gateway.domain.errors import LedgerError
from gateway.receive.settings import DicomSettings
from tests.benchmarks.sender import Item, Sending
from tests.support.certificates import Authority
from tests.support.node import EXPLICIT, Make, Site, associate, associations, descriptors, recorded, send, wait
from tests.support.received import SERIES, dataset, encode
from tests.support.wire import (
    ABORT,
    MR,
    REJECTED,
    associated,
    association_request,
    command,
    drip,
    p_data,
    pdu,
    peer,
    status,
    store_request,
)

UID = f"{SERIES}.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def nothing_left(site: Site) -> None:
    """No thread, no association in the ledger that is open, no temporary file; and the next peer is served."""
    wait(lambda: not associations())
    assert list(site.spool._temporary.iterdir()) == []
    assert all(study["open_associations"] == 0 for study in site.ledger.list_studies())
    association = associate(site, EXPLICIT)
    assert send(association, dataset(99)).Status == 0x0000
    association.release()


# --- lengths -----------------------------------------------------------------------------------------------------------


def test_a_request_of_4_gigabytes(make: Make) -> None:
    """An A-ASSOCIATE-RQ that claims to be endless is aborted at its header, not read into memory."""
    site, before = make(), psutil.Process().memory_info().rss
    with peer(site.port) as raw:
        raw.sendall(struct.pack(">BxI", 1, 0xFFFFFFF0) + bytes(100))
        assert pdu(raw) == (ABORT, b"\0\0\2\6")
    assert psutil.Process().memory_info().rss - before < 8 << 20
    nothing_left(site)


def test_a_fragment_longer_than_agreed(make: Make) -> None:
    """A P-DATA-TF beyond the maximum length ends the association with an A-ABORT."""
    site = make(max_pdu=4096)
    with associated(site.port) as raw:
        raw.sendall(p_data(store_request(UID), control=3) + p_data(bytes(4096), control=0))
        assert pdu(raw) == (ABORT, b"\0\0\2\6")
    nothing_left(site)


def test_a_fragment_longer_than_its_pdu(make: Make) -> None:
    """Item lengths that lie are an A-ABORT."""
    site = make()
    for length in (0, 1, 5000, 0xFFFFFFFF):
        with associated(site.port) as raw:
            raw.sendall(struct.pack(">BxIIBB", 4, 100, length, 1, 3) + bytes(94))
            assert pdu(raw)[0] == ABORT
    nothing_left(site)


def test_an_endless_command(make: Make) -> None:
    """Fragments of a command set that never ends are cut."""
    site = make()
    with associated(site.port) as raw:
        raw.sendall(p_data(bytes(40_000), control=1) * 2)
        assert pdu(raw)[0] == ABORT
    nothing_left(site)


def test_an_instance_too_long(make: Make) -> None:
    """More than dicom.max_instance ends the association; nothing of it is kept."""
    site = make(max_instance=100_000)
    with associated(site.port) as raw:
        raw.sendall(p_data(store_request(UID), control=3))
        for _ in range(3):
            raw.sendall(p_data(bytes(50_000), control=0))
        assert pdu(raw)[0] == ABORT
    assert site.ledger.list_studies() == []
    nothing_left(site)


def test_an_association_too_long(make: Make) -> None:
    """What was acknowledged stays, and more than dicom.max_association_bytes ends the association."""
    one = len(encode(dataset()))
    site = make(max_association_bytes=2 * one + 10)
    with associated(site.port) as raw:
        for number in (1, 2, 3):
            uid = f"{SERIES}.{number}"
            raw.sendall(p_data(store_request(uid), control=3) + p_data(encode(dataset(number)), control=2))
            kind, said = pdu(raw)
            assert (kind, status(said)) == (4, 0x0000) if number < 3 else kind == ABORT
    assert site.ledger.list_studies()[0]["instances"] == 2
    nothing_left(site)


# --- time --------------------------------------------------------------------------------------------------------------


def test_a_request_that_drips(make: Make) -> None:
    """A byte now and then buys no time: the request for an association must be whole by its deadline."""
    site = make(idle_timeout=1.0)
    with peer(site.port) as raw:
        assert drip(raw, association_request("HILUM", str(MRImageStorage), "1.2.840.10008.1.2.1"), 0.1, 10) < 5
    nothing_left(site)


def test_a_pdu_that_drips(make: Make) -> None:
    """The same within an association, for each PDU."""
    site = make(pdu_timeout=1.0)
    with associated(site.port) as raw:
        assert drip(raw, p_data(store_request(UID), control=3), 0.1, 10) < 5
    nothing_left(site)


def test_tiny_fragments_in_good_time(make: Make) -> None:
    """A fragment of a byte now and then meets every limit of a PDU and brings its message to no end: it is cut."""
    site = make(idle_timeout=0.5, min_rate=1000)
    with associated(site.port) as raw:
        raw.sendall(p_data(store_request(UID), control=3))
        assert drip(raw, [p_data(b"\0", control=0)] * 1000, 0.05, 12) > 0.9
    nothing_left(site)


def test_silence(make: Make) -> None:
    """A connection that says nothing, and an association that says no more, are ended."""
    site = make(idle_timeout=0.5)
    with peer(site.port) as raw, associated(site.port) as other:
        assert pdu(raw)[0] == 0
        assert pdu(other)[0] == 0
    nothing_left(site)


def test_a_slow_peer_holds_up_nobody(make: Make) -> None:
    """While one drips, others store."""
    site = make()
    with associated(site.port) as raw:
        raw.sendall(p_data(store_request(UID), control=3)[:20])
        association = associate(site, EXPLICIT)
        assert send(association, dataset(2)).Status == 0x0000
        association.release()
    nothing_left(site)


# --- numbers -----------------------------------------------------------------------------------------------------------


def test_many_silent_connections(make: Make) -> None:
    """Connections that ask for nothing make room for one that does, and never are more than the limit."""
    site = make(max_unassociated=10)
    silent = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(30)]
    association = associate(site, EXPLICIT)
    assert association.is_established
    wait(lambda: len(associations()) <= 11)
    assert send(association, dataset()).Status == 0x0000
    association.release()
    for raw in silent:
        raw.close()
    nothing_left(site)


def test_limits_of_one_address(make: Make) -> None:
    """One address takes its share of associations and of waiting connections, and no more: rejected, transient."""
    site = make(max_associations_per_address=1, max_unassociated_per_address=2)
    with associated(site.port):
        with peer(site.port) as raw:
            raw.sendall(association_request("HILUM", str(MRImageStorage), "1.2.840.10008.1.2.1"))
            assert pdu(raw) == (REJECTED, b"\0\2\3\2")
        waiting = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(4)]
        wait(lambda: len(associations()) <= 3)
        for one in waiting:
            one.close()
    nothing_left(site)


def test_opened_and_closed(make: Make) -> None:
    """A load balancer's health checks cost nothing that stays."""
    site = make()
    before = descriptors()
    for _ in range(300):
        socket.create_connection(("127.0.0.1", site.port)).close()
    nothing_left(site)
    wait(lambda: descriptors() <= before)


NO_DESCRIPTORS = """
    import pathlib, resource, socket, sys, time
    from gateway.receive.settings import DicomSettings
    from tests.support.node import EXPLICIT, Site, associate, send
    from tests.support.received import dataset
    site = Site(pathlib.Path(sys.argv[1]), DicomSettings(port=0))
    used = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
    flood = []
    for _ in range(40):
        try:
            flood.append(socket.create_connection(("127.0.0.1", site.port), timeout=0.3))
        except OSError:
            break
    started, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - started < 0.5:
        time.sleep(0.1)
    assert time.process_time() - cpu < 0.3, "it spins"
    for one in flood:
        one.close()
    for _ in range(100):
        association = associate(site, EXPLICIT)
        if association.is_established:
            break
        time.sleep(0.05)
    assert send(association, dataset()).Status == 0x0000
    association.release()
    print("good")
"""


def test_no_descriptors(tmp_path: Path) -> None:
    """Where the machine gives out no more descriptors, the node neither spins nor stops listening."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NO_DESCRIPTORS), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.endswith("good\n"), done.stderr


# --- memory ------------------------------------------------------------------------------------------------------------


def test_an_error_of_one_connection(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """accept(2) passes on what has happened to the connection that came, EPROTO say: the node goes on listening."""
    accept, errors = socket.socket.accept, [errno.EPROTO, errno.EHOSTUNREACH, errno.EPERM]

    def fail(listener: socket.socket) -> tuple[socket.socket, object]:
        accepted = accept(listener)
        if errors:
            accepted[0].close()
            raise OSError(errors.pop(), "of the connection")
        return accepted

    monkeypatch.setattr(socket.socket, "accept", fail)
    site = make()
    for _ in range(3):
        assert not associate(site).is_established
    assert not errors
    association = associate(site)
    assert association.is_established
    association.release()
    assert site.node.accepting


def test_memory_is_flat(make: Make) -> None:
    """An instance of 256 MB comes in while the memory stays what it was, and is there byte by byte."""
    site, piece, count = make(durability="os"), bytes(1 << 20), 256
    head = encode(dataset()) + b"\xe0\x7f\x10\0OB\0\0" + (len(piece) * count).to_bytes(4, "little")
    digest, most = hashlib.sha256(head), 0
    before = psutil.Process().memory_info().rss

    def pieces() -> Iterator[bytes]:
        nonlocal most
        yield head
        for _ in range(count):
            digest.update(piece)
            most = max(most, psutil.Process().memory_info().rss)
            yield piece

    sending = Sending(site.port, "HILUM", MR, EXPLICIT_LITTLE)
    assert sending.store(Item(MR, UID, EXPLICIT_LITTLE, pieces())) == 0x0000
    sending.release()
    assert most - before < 64 << 20
    assert site.digest(UID) == digest.hexdigest()


def test_fifty_associations(make: Make) -> None:
    """Fifty at once, each in the middle of an instance, cost little; every instance is there."""
    site, before = make(), psutil.Process().memory_info().rss
    with ExitStack() as stack:
        held = [stack.enter_context(associated(site.port)) for _ in range(50)]
        for number, raw in enumerate(held):
            data = encode(dataset(number))
            raw.sendall(p_data(store_request(f"{SERIES}.{number}"), control=3) + p_data(data[:100], control=0))
        assert len(associations()) == 50
        assert psutil.Process().memory_info().rss - before < 128 << 20
        for number, raw in enumerate(held):
            raw.sendall(p_data(encode(dataset(number))[100:], control=2))
            assert status(pdu(raw)[1]) == 0x0000
    assert site.ledger.list_studies()[0]["instances"] == 50
    nothing_left(site)


# --- what is said ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        (b"\0\1\0\0HILUM", b"\0\2\0\0HILUM", b"\0\1\2\2"),  # protocol version
        (b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2", b"\0\1\1\2"),  # application context
        (b"HILUM ", b"HILUN ", b"\0\1\1\7"),  # called AE title
    ],
)
def test_requests_that_are_rejected(make: Make, old: bytes, new: bytes, answer: bytes) -> None:
    """Each has the result, source and reason of PS3.8 table 9-21."""
    site = make()
    request = association_request("HILUM", str(MRImageStorage), "1.2.840.10008.1.2.1")
    assert old in request
    with peer(site.port) as raw:
        raw.sendall(request.replace(old, new))
        assert pdu(raw) == (REJECTED, answer)
    nothing_left(site)


@pytest.mark.parametrize(
    "said",
    [
        b"",  # nothing at all
        command((0x0100, b"\1\0")),  # no message id, no dataset type
        command((0x0110, b"\1\0"), (0x0800, b"\1\1")),  # no command field
        b"\x00\x00\x00\x01\xff\xff\xff\x00\x01\x00",  # a length that lies
        b"\x08\x00\x00\x01\x02\x00\x00\x00\x01\x00",  # another group
        store_request(UID, field=0x8001, dataset=False),  # a response to nothing
    ],
)
def test_commands_that_cannot_be_answered(make: Make, said: bytes) -> None:
    """They end the association with an A-ABORT."""
    site = make()
    with associated(site.port) as raw:
        raw.sendall(p_data(said, control=3))
        assert pdu(raw)[0] == ABORT
    nothing_left(site)


@pytest.mark.parametrize(("field", "answer"), [(0x0020, 0x0122), (0x0130, 0x0122), (0x0777, 0x0122), (0x0001, 0xC000)])
def test_commands_that_are_refused(make: Make, field: int, answer: int) -> None:
    """A service that is not ours, and a C-STORE without a dataset, are answered, and the association goes on."""
    site = make()
    with associated(site.port) as raw:
        for _ in range(2):
            raw.sendall(p_data(store_request(UID, field=field, dataset=False), control=3))
            kind, said = pdu(raw)
            assert (kind, status(said)) == (4, answer)
    nothing_left(site)


@pytest.mark.parametrize("uid", ["../../../tmp/evil", "1.2.3;$(id)", "", "1" * 65])
def test_a_command_with_a_hostile_identifier(make: Make, uid: str) -> None:
    """The command's UID is checked like the dataset's, before a file is begun."""
    site = make()
    with associated(site.port) as raw:
        raw.sendall(p_data(store_request(uid), control=3) + p_data(encode(dataset()), control=2))
        kind, said = pdu(raw)
        assert (kind, status(said)) == (4, 0xC000)
    assert site.ledger.list_studies() == []
    nothing_left(site)


def test_contexts_are_kept_apart(make: Make) -> None:
    """Fragments of a context that was not accepted, or of another than their command's, are an A-ABORT."""
    site = make()
    for said in (
        p_data(store_request(UID), control=3, context=3),
        p_data(store_request(UID), control=3) + p_data(encode(dataset()), control=2, context=3),
        p_data(store_request(UID), control=3) + p_data(store_request(UID), control=3),
        p_data(encode(dataset()), control=2),
    ):
        with associated(site.port) as raw:
            raw.sendall(said)
            assert pdu(raw)[0] == ABORT
    nothing_left(site)


def test_fragments_of_every_size(make: Make) -> None:
    """However a message is cut up, its bytes are the same."""
    site, data = make(), encode(dataset())
    with associated(site.port) as raw:
        for size in (1, 7, 100, 100_000):
            pieces = [data[start : start + size] for start in range(0, len(data), size)]
            said = [p_data(piece, control=0) for piece in pieces[:-1]] + [p_data(pieces[-1], control=2)]
            raw.sendall(p_data(store_request(UID), control=3) + b"".join(said))
            kind, answer = pdu(raw)
            assert (kind, status(answer)) == (4, 0x0000)
        raw.sendall(p_data(store_request(UID), control=3) + p_data(b"", control=0) + p_data(data, control=2))
        assert status(pdu(raw)[1]) == 0x0000
    assert site.digest(UID) is not None
    assert site.ledger.list_studies()[0]["instances"] == 1


def test_a_deflated_bomb(make: Make) -> None:
    """A dataset that inflates beyond all measure is refused, and takes no memory while it is found out."""
    site = make(max_inflated=50_000_000)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    opening = packer.compress(encode(dataset()) + b"\xe0\x7f\x10\x00OB\0\0" + (100 << 20).to_bytes(4, "little"))
    bomb = opening + b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    association = associate(site, [build_context(MRImageStorage, DeflatedExplicitVRLittleEndian)])
    before = psutil.Process().memory_info().rss
    answer = send(association, dataset(), raw=bomb)
    assert (answer.Status, answer.ErrorComment) == (0xC000, "the dataset inflates to more than dicom.max_inflated")
    assert psutil.Process().memory_info().rss - before < 64 << 20
    association.release()
    assert site.ledger.list_studies() == []
    nothing_left(site)


# --- breaking off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "abort", "half"])
def test_breaking_off_anywhere(make: Make, how: str) -> None:
    """Closed, reset, aborted or left half open at any byte: no thread, descriptor or file is left, and no half instance."""
    site = make(idle_timeout=1.0)
    wire = recorded(site)
    wait(lambda: not associations())
    before, held = descriptors(), []
    for cut in sorted({*range(0, len(wire), max(1, len(wire) // 12)), len(wire) - 10, len(wire) - 3}):
        raw = socket.create_connection(("127.0.0.1", site.port))
        raw.sendall(wire[:cut])
        if how == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "abort":
            raw.sendall(struct.pack(">BxI4x", 7, 4))
        held.append(raw) if how == "half" else raw.close()
    wait(lambda: not associations())
    for raw in held:
        raw.close()
    assert {study["instances"] for study in site.ledger.list_studies()} == {1}
    nothing_left(site)
    wait(lambda: descriptors() <= before)


@pytest.mark.parametrize("failing", ["fdatasync", "writev"])
def test_a_disk_that_fails(make: Make, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """An error of the disk is never an acknowledgement: 0xA700, no row, no file; and the same instance is taken later."""
    site = make()
    association = associate(site, EXPLICIT)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> int:
            raise OSError(5, "Input/output error")

        patch.setattr(os, failing, fail)
        answer = send(association, dataset())
        assert (answer.Status, answer.ErrorComment) == (0xA700, "cannot write to the spool: Input/output error")
        assert [path for path in site.spool._objects.rglob("*") if path.is_file()] == []
    assert site.ledger.list_studies() == []
    assert send(association, dataset()).Status == 0x0000
    association.release()
    assert site.digest(UID) is not None


def test_a_ledger_that_fails(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that cannot be written is 0xA700, and the sender may try again over the same association."""
    site = make()
    association = associate(site, EXPLICIT)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> str:
            raise LedgerError("the ledger cannot be used: database is locked")

        patch.setattr(site.ledger, "add_instance", fail)
        assert send(association, dataset()).Status == 0xA700
    assert send(association, dataset()).Status == 0x0000
    association.release()
    nothing_left(site)


def test_a_stop_in_the_middle_of_an_instance(make: Make) -> None:
    """The node stops at once, whoever is in the middle of what; what was not acknowledged is not kept."""
    site = make()
    with associated(site.port) as raw:
        raw.sendall(p_data(store_request(UID), control=3) + p_data(bytes(1000), control=0))
        started = time.monotonic()
        site.node.stop()
        assert time.monotonic() - started < 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("association", "dicom node"))]
    assert list(site.spool._temporary.iterdir()) == []


# --- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def _calls(site: Site, title: str, context: ssl.SSLContext) -> str:
    association = AE(title).associate(
        "127.0.0.1", site.port, contexts=EXPLICIT, ae_title="HILUM", tls_args=(context, None)
    )
    if association.is_established:
        association.release()
        return "accepted"
    return "rejected" if rejection_of(association) else "aborted"


def test_certificates_are_bound_to_titles(make: Make, authority: Authority) -> None:
    """Who shows a good certificate, but another's, is rejected like a stranger."""
    site = make(
        tls=authority.server_settings(),
        peers=[
            {"ae_title": "CT1", "host": "127.0.0.1", "certificate_name": "ct1"},
            {"ae_title": "CT2", "host": "127.0.0.1", "certificate_fingerprint": authority.fingerprint("ct2")},
            {"ae_title": "CT3", "host": "127.0.0.1"},
        ],
    )
    answers = {(title, name): _calls(site, title, authority.client(name)) for title, name in _PAIRS}
    assert answers == _PAIRS


_PAIRS = {
    ("CT1", "ct1"): "accepted",
    ("CT1", "ct2"): "rejected",
    ("CT2", "ct2"): "accepted",
    ("CT2", "ct1"): "rejected",
    ("CT3", "ct1"): "accepted",
    ("CT4", "ct1"): "rejected",
}


@pytest.mark.parametrize(
    ("version", "suites", "good"),
    [
        (ssl.TLSVersion.TLSv1_3, "", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES256-GCM-SHA384", True),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", False),  # no forward secrecy
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA256", False),  # no authenticated encryption
    ],
)
def test_suites_of_bcp_195(make: Make, authority: Authority, version: ssl.TLSVersion, suites: str, good: bool) -> None:
    """Only suites of the profile."""
    site, context = make(tls=authority.server_settings()), authority.client("ct1")
    context.minimum_version = context.maximum_version = version
    if suites:
        context.set_ciphers(suites)
    assert (_calls(site, "ANY", context) == "accepted") is good


def test_without_or_with_a_strange_certificate(make: Make, authority: Authority) -> None:
    """Nobody is let in by TLS alone."""
    site = make(tls=authority.server_settings())
    assert _calls(site, "ANY", authority.client(None)) == "aborted"
    assert _calls(site, "ANY", authority.client("stranger")) == "aborted"


def test_with_a_certificate_that_has_expired(make: Make, authority: Authority) -> None:
    """Of the right authority and bound to the right title, but its time is over: no association; others still have theirs."""
    bound = [{"ae_title": name.upper(), "host": "127.0.0.1", "certificate_name": name} for name in ("expired", "ct1")]
    site = make(tls=authority.server_settings(), peers=bound)
    assert _calls(site, "EXPIRED", authority.client("expired")) == "aborted"
    assert _calls(site, "CT1", authority.client("ct1")) == "accepted"
    wait(lambda: not associations())


def test_a_handshake_that_never_ends(make: Make, authority: Authority) -> None:
    """It is cut by its deadline."""
    site = make(tls=authority.server_settings(), idle_timeout=0.5)
    with peer(site.port) as raw:
        raw.sendall(b"\x16\x03\x01")
        assert pdu(raw)[0] == 0
    wait(lambda: not associations())


def test_a_bound_peer_without_tls() -> None:
    """A certificate that nobody asks for is a mistake in the configuration."""
    peers = [{"ae_title": "CT1", "host": "127.0.0.1", "certificate_name": "ct1"}]
    with pytest.raises(ValueError, match=r"set tls\.client_ca_file"):
        DicomSettings.model_validate({"peers": peers})
    with pytest.raises(ValueError, match="openssl x509 -noout -fingerprint -sha256"):
        DicomSettings.model_validate({"peers": [{**peers[0], "certificate_fingerprint": "ab:cd"}]})
