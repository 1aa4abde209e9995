"""Receivers that answer twice, in any order, on any connection, sometimes wrongly: every message ends as its application said."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import get_args

import pytest

from gateway.hl7.acknowledgement import control_id
from gateway.testing import Answer, FakeEhr
from tests.integration.test_outbox_hl7 import Deferred

MODES = ("deferred", "application")
ANSWERS: tuple[Answer, ...] = (
    "CA", "CA", "CA", "CA, AA", "CA, AE", "CA, AR", "AA", "AE", "CE", "CR", "garbage", "wrong id", "close", "AA, close",
)  # fmt: skip
SAID = ("AA", "AA", "AE", "AR")


class Receiver:
    """What a receiver has got and said, by MSH-10."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.got: list[str] = []
        self.said: dict[str, set[str]] = defaultdict(set)
        self.script: list[Answer] = [chance.choice(ANSWERS) for _ in range(60)]
        self._next = iter(tuple(self.script))

    def take(self, message: bytes) -> None:
        """A message comes; what the script answers is written down."""
        self.got.append(control_id(message))
        self.said[self.got[-1]].update(next(self._next, "AA").replace(",", "").split())


@pytest.mark.parametrize("mode", MODES)
def test_every_message_ends_as_its_application_said(tmp_path: Path, mode: str) -> None:
    """Delivered only after AA, dead only after AR or CR; the first of a patient's messages has ended before the second is sent;
    one logical message each. Some of what was said later came on the connection of the messages."""
    heard = 0
    for seed in range(6):
        directory = tmp_path / str(seed)
        directory.mkdir()
        heard += _converse(directory, mode, random.Random(f"{mode} {seed}"))
    assert heard >= 4


def _converse(directory: Path, mode: str, chance: random.Random) -> int:
    """Twelve messages about five patients; returns how many answers were heard, and accepted, on our own connection."""
    receiver = Receiver(chance)
    patients = [chance.choice("pqrst") for _ in range(12)]
    with FakeEhr(receiver.script, on_message=receiver.take) as peer:
        outbox = Deferred(directory, peer.port, mode)
        outbox.plan(*patients)
        for _ in range(200):
            rows = outbox.rows()
            _assert_order(rows, patients, receiver)
            if all(row["state"] in ("delivered", "dead") for row in rows):
                break
            for row in rows:
                if row["state"] == "stored" and chance.random() < 0.5:
                    code = chance.choice(SAID)
                    receiver.said[row["key"]].add(code)
                    chance.choice([peer.say, outbox.say])(code, row["key"])
            outbox.work(chance.choice([0, 10, 300]))
        _assert_ends(outbox.rows(), receiver)
        outbox.story.ledger.close()
    assert peer.control_ids == {f"C{number}" for number in range(12)}
    assert len(set(peer.messages)) == 12
    return len(peer.acknowledgements)


def _assert_order(rows: list[dict[str, object]], patients: list[str], receiver: Receiver) -> None:
    states = {row["key"]: row["state"] for row in rows}
    for number, patient in enumerate(patients):
        if f"C{number}" in receiver.got:
            earlier = [f"C{before}" for before in range(number) if patients[before] == patient]
            assert {states[key] for key in earlier} <= {"delivered", "dead"}


def _assert_ends(rows: list[dict[str, object]], receiver: Receiver) -> None:
    for row in rows:
        said = receiver.said[str(row["key"])]
        assert row["state"] in ("delivered", "dead"), row
        assert said & ({"AA"} if row["state"] == "delivered" else {"AR", "CR"}), (row, said)


def test_every_answer_of_the_receiver_is_one_it_knows() -> None:
    """Of the list above."""
    assert set(ANSWERS) <= set(get_args(Answer))
