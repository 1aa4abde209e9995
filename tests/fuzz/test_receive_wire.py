"""What is no DICOM at all on the DICOM port: whatever a peer says, the node goes on and keeps only what is whole."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from gateway.domain.ids import InstanceUID, Uid
from gateway.receive.settings import DicomSettings
from tests.support.mutations import answer
from tests.support.node import EXPLICIT, Site, associate, associations, dataset_digest, recorded, send, wait
from tests.support.received import SERIES, dataset

pytestmark = pytest.mark.neighbour


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node for all of them."""
    made = Site(tmp_path_factory.mktemp("node"), DicomSettings(port=0, idle_timeout=2.0))
    yield made
    made.close()


def judge(site: Site) -> None:
    """The node takes an instance, no association is left, and every row has its file with its digest."""
    association = associate(site, EXPLICIT)
    assert association.is_established
    assert send(association, dataset(99)).Status == 0x0000
    association.release()
    wait(lambda: not associations(), 15)
    [*studies] = site.ledger.list_studies()
    assert all(study["open_associations"] == 0 for study in studies)
    for study in studies:
        for item in site.ledger.study(study["uid"]).instances:
            uid = InstanceUID(Uid(item.header.sop_instance_uid))
            assert dataset_digest(site.spool.path(item.file)) == site.digest(uid) == item.sha256
    assert list(site.spool._temporary.iterdir()) == []


def test_what_is_no_dicom(site: Site) -> None:
    """Other protocols, empty connections and noise."""
    dice = random.Random(0)
    for data in (
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\x0bMSH|^~\\&|\x1c\r",
        *(dice.randbytes(dice.randrange(1, 2000)) for _ in range(15)),
    ):
        answer(site.port, data)
    judge(site)


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 0, 255])
def test_every_pdu_out_of_place(site: Site, kind: int) -> None:
    """Each PDU type as the first one, empty, short, and with a length that lies (PS3.8 9.3)."""
    for length, body in ((0, b""), (4, bytes(4)), (68, bytes(68)), (0x7FFFFFFF, bytes(100)), (10, bytes(100))):
        answer(site.port, struct.pack(">BBI", kind, 0, length) + body)
    judge(site)


def test_contexts_that_are_none(site: Site) -> None:
    """Presentation contexts of an odd kind are answered, and the next association is as any other."""
    wire = recorded(site)
    for old, new in (
        (b"1.2.840.10008.5.1.4.1.1.4", b"../../../../../../etc/xxx"),
        (b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.X"),
        (b"HILUM", b"HIL\xffM"),
        (b"TESTER", b"\x00\x00\x00\x00\x00\x00"),
        (f"{SERIES}.1".encode(), b"../../../x/y."),
    ):
        assert old in wire
        answer(site.port, wire.replace(old, new[: len(old)].ljust(len(old))))
    judge(site)
    assert not [path for path in site.spool._objects.rglob("*") if path.is_file() and len(path.name) != 64]
