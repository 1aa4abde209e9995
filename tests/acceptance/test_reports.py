"""A result's reports all the way: preliminary to both EHRs, confirmed by a person, final in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeSite
from tests.support.block import write_block
from tests.support.fhir import fhir_server
from tests.support.neighbours import Neighbours

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_confirmation_makes_final_reports_everywhere(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """`hilum confirm` gives a second message with its own MSH-10 and the same OBR-3, and the same FHIR report, final."""
    files = write_block(tmp_path / "series")
    with fhir_server() as server:
        destinations = neighbours.configuration("")["destinations"]
        destinations["fhir"] = {"kind": "fhir", "url": server.url, "patient": "logical"}
        rule = neighbours.configuration("")["rules"][0] | {"deliver": ["pacs", "ehr", "fhir"]}
        site = make_site(destinations=destinations, rules=[rule])
        site.send(files)
        (job,) = site.wait_for_jobs(1, "delivered")
        assert [item["status"] for item in server.of("DiagnosticReport")] == ["preliminary"]
        done = site.hilum("confirm", job["id"], "--by", "Dr. Grey")
        assert done.returncode == 0, done.stderr
        site.wait_for(lambda: len(neighbours.ehr.control_ids) == 2, "the final message")
        site.wait_for(
            lambda: [item["status"] for item in server.of("DiagnosticReport")] == ["final"], "the final report"
        )
        again = site.hilum("confirm", job["id"], "--by", "Dr. Grey")
    assert again.returncode == 1
    assert "confirmed already" in again.stderr
    first, second = (message.decode().split("\r") for message in neighbours.ehr.messages)
    requests = [next(line for line in lines if line.startswith("OBR")).split("|") for lines in (first, second)]
    assert [fields[25] for fields in requests] == ["P", "F"]
    assert requests[0][3] == requests[1][3]
    assert requests[0][22] < requests[1][22]
    (result,) = server.of("DiagnosticReport")
    assert result["resultsInterpreter"] == [{"display": "Dr. Grey"}]
