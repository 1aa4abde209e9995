"""Conversations damaged in every way, thousands of them, some at once: each has its right answer, and nothing is left behind."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from pynetdicom.tests import encoded_dimse_msg, encoded_dimse_n_msg, encoded_pdu_items

from gateway.receive.settings import DicomSettings
from tests.support.mutations import KINDS, REQUEST, answer
from tests.support.node import Site, associations, dataset_digest, descriptors, wait
from tests.support.wire import p_data

CASES = 120  # of each kind
AT_ONCE = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node for all of them: what one leaves behind, the next would find."""
    made = Site(tmp_path_factory.mktemp("node"), DicomSettings(port=0, durability="os", idle_timeout=10.0))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_left(site: Site) -> Iterator[None]:
    """Afterwards the node answers a C-ECHO, and no thread, descriptor, temporary file or open association is left."""
    before = descriptors()
    yield
    entity = AE("TESTER")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", site.port, ae_title="HILUM")
    assert association.send_c_echo().Status == 0x0000
    association.release()
    wait(lambda: not associations())
    wait(lambda: descriptors() <= before)
    assert list(site.spool._temporary.iterdir()) == []
    for study in site.ledger.list_studies(1000):
        assert study["open_associations"] == 0
        for item in site.ledger.study(study["uid"]).instances:
            assert dataset_digest(site.spool.path(item.file)) == item.sha256


def answers(site: Site, said: list[bytes]) -> list[list[str]]:
    with ThreadPoolExecutor(AT_ONCE) as callers:
        return list(callers.map(lambda one: answer(site.port, one), said))


@pytest.mark.parametrize("kind", KINDS)
def test_damage(site: Site, kind: str) -> None:
    """Each kind many times, from a seed of its own."""
    dice, damage = random.Random(kind), KINDS[kind]
    said = [b"".join(damage.say(dice)) for _ in range(CASES)]
    for number, heard in enumerate(answers(site, said)):
        if isinstance(damage.ends, tuple):
            assert tuple(heard) == damage.ends, (number, said[number])
        else:
            assert (heard[-1] if heard else "") in damage.ends, (number, heard, said[number])
        assert heard.count("accepted") <= 1


def _encoded(module: object) -> list[bytes]:
    return [value for value in vars(module).values() if isinstance(value, bytes) and len(value) > 6]


def test_pdus_of_pynetdicom(site: Site) -> None:
    """The PDUs that pynetdicom tests itself with, each as the first one, as they are and with bytes changed."""
    dice, said = random.Random(1), []
    for seed in _encoded(encoded_pdu_items):
        said.append(seed)
        for _ in range(8):
            damaged = bytearray(seed)
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
            said.append(bytes(damaged))
    heard = answers(site, said)
    assert len(heard) > 300
    assert {word.split()[0] for words in heard for word in words} <= {"accepted", "rejected", "aborted"}


def test_messages_of_pynetdicom(site: Site) -> None:
    """Its DIMSE messages, of every service there is: refused, or the end of the association, but never an error of ours."""
    dice, said = random.Random(2), []
    for seed in (*_encoded(encoded_dimse_msg), *_encoded(encoded_dimse_n_msg)):
        for flips in (0, 1, 1, 1, 2, 3):
            damaged = bytearray(seed)
            for _ in range(flips):
                damaged[dice.randrange(1, len(damaged))] = dice.randrange(256)
            said.append(REQUEST + p_data(bytes(damaged[1:]), control=seed[0] & 3))
    heard = answers(site, said)
    assert len(heard) > 200
    assert {words[0] for words in heard} == {"accepted"}
    assert {word for words in heard for word in words[1:]} <= {"aborted 6", "0122", "0211", "c000", "a900"}


def test_memory_after_a_thousand_bad_requests(site: Site) -> None:
    """What is refused or aborted leaves nothing in memory either."""
    dice, damage = random.Random(3), KINDS["items of the request"]
    said = [b"".join(list(damage.say(dice))[:1]) for _ in range(1600)]
    logging.disable()  # pytest would keep every record with all that its traceback holds
    try:
        answers(site, said[:600])  # threads and their memory come once
        before = psutil.Process().memory_info().rss
        assert len(answers(site, said[600:])) == 1000
        assert psutil.Process().memory_info().rss - before < 24 << 20
    finally:
        logging.disable(logging.NOTSET)
