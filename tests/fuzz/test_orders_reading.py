"""Damaged messages from the EHR: each says something, nothing, or that it cannot be understood; nothing else happens."""

from __future__ import annotations

import random

import pytest

from gateway.domain.study import Patient
from gateway.orders.linking import Images, link
from gateway.orders.patients import Unreadable
from gateway.orders.reading import Conventions, read
from tests.support import hl7

SEEDS = [
    hl7.order(),
    hl7.adt("A40", "1", patient="P2^^^HOSP~N^^^NAT", prior="P1^^^HOSP"),
    hl7.adt("A08", "2"),
    hl7.report(),
    *map(hl7.hl7, (hl7.EPIC_ORM, hl7.CERNER_OMG, hl7.IHE_OMI, hl7.MIRTH_ORM, hl7.ORION_ORM)),
]
SPICES = [
    "|",
    "^",
    "~",
    "\\",
    "&",
    "\r",
    "\n",
    "\0",
    "\x0b",
    '""',
    "\\X0D\\",
    "\\F",
    "葉",
    "\ud800",
    "MSH|",
    "PID|",
    "OBR|",
    " ",
    "9" * 300,
]
IMAGES = Images(patient=Patient(patient_id="P1"), study_uid="1.2", accession_numbers=frozenset({"A1"}))


def damaged(text: str, chance: random.Random) -> str:
    """Cut off, cut out, spiced, or with two pieces that have changed places."""
    for _ in range(chance.randrange(1, 4)):
        first, second = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        match chance.randrange(4):
            case 0:
                text = text[:second]
            case 1:
                text = text[:first] + text[second:]
            case 2:
                text = text[:first] + chance.choice(SPICES) + text[first:]
            case _:
                text = text[second:] + text[first:second] + text[:first]
        text = text or "|"
    return text


@pytest.mark.parametrize("seed", range(8))
def test_damaged_messages(seed: int) -> None:
    """Whatever is understood can also be linked, and holds nothing that a database refuses."""
    chance = random.Random(seed)
    for _ in range(250):
        text = damaged(chance.choice(SEEDS), chance)
        try:
            found = read(text, 0.0, Conventions(zone=None))
        except Unreadable as error:
            assert "Wang" not in str(error)
            continue
        link(IMAGES, found.facts)
        assert "\0" not in repr(found).replace("\\x00", "\0")
        repr(found).encode()
