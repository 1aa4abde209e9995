"""`hilum demo`, as a stranger types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.test_process import hilum

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_demo_shows_the_main_job(tmp_path: Path) -> None:
    """The whole way on the real head, judged by the demonstration itself: Dice, volume, hops, counts, a picture."""
    done = hilum("demo", "--output", tmp_path / "demo", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["result"]["dice"] >= 0.93
    assert 1150 < report["result"]["volume_ml"] < 1250
    assert report["result"]["objects_in_pacs"] == 11  # of which six are key slices
    assert report["result"]["messages"] == 1
    assert report["sent"]["acknowledged"] == report["sent"]["instances"] == 155
    assert [hop["what"] for hop in report["hops"]][-1] == "delivered"
    assert {file.name for file in (tmp_path / "demo" / "results").iterdir()} == {
        "overlay.png", "seg.dcm", "sr.dcm", "sr-data.dcm", "ko.dcm", "pdf.dcm", "report.pdf", "oru.hl7",
        *(f"sc-{number}.dcm" for number in range(1, 7)),
    }  # fmt: skip
    for said in ("Orthanc", "HL7 receiver", "Dice"):
        assert said in done.stderr
