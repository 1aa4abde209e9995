"""The page of guarantees names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "guarantees.md").read_text("utf-8").splitlines()
    if re.match(r"\| [FA]\d\d|\| \|.*`[\w/]*\.py::", line)
]


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_the_tests_of_a_row(row: str) -> None:
    """Each `file::test`, and each `::test` of the same file."""
    file = ""
    for path, test in re.findall(r"`([\w/]*\.py)?::(\w+)`", row):
        file = path or file
        (found,) = (ROOT / "tests").rglob(file) if "/" not in file else [ROOT / "tests" / file]
        assert f"def {test}(" in found.read_text("utf-8"), (file, test)


def test_every_fault_and_attack_of_receiving_has_a_row() -> None:
    """As the catalogue counts them."""
    wanted = {*(f"F{number}" for number in (*range(24, 34), 42, 48)), *(f"A{number:02}" for number in range(1, 16))}
    named = set(re.findall(r"[FA]\d\d", " ".join(row.split("|")[1] for row in ROWS)))
    assert wanted <= named
