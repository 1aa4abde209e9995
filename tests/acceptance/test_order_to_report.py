"""An order, its images, the report with the order's numbers, a merge, the corrected report: the whole way, in Chinese."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pytest
from hl7.client import MLLPClient

from gateway.testing import FakeEhr
from tests.acceptance.conftest import MakeSite
from tests.support import hl7
from tests.support.block import write_block
from tests.support.neighbours import SR, Neighbours, assert_nothing_lost, study_uid_of
from tests.support.orthanc import free_port
from tests.support.site import Site

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]

NAME = "Ye^XiaoDong=葉^小東"
XPN = "Ye^XiaoDong^^^^^L^A~葉^小東^^^^^L^I"
IMAGES = {
    "SpecificCharacterSet": "GB18030",
    "PatientName": NAME,
    "PatientID": "P1",
    "PatientBirthDate": "19800101",
    "AccessionNumber": "A1",
}
RULE = {
    "name": "ordered heads",
    "when": 'order.procedure_code == "MRHEAD" && order.priority == "STAT"',
    "run": ["model"],
    "deliver": ["pacs", "ehr"],
    "priority": "order",
    "hold": {"quiet": "1s"},
}


def tell(site: Site, *messages: str, codec: str = "utf-8") -> None:
    """Sends messages from the EHR by python-hl7's client; each must be accepted."""
    with MLLPClient("127.0.0.1", site.status["hl7_port"]) as client:
        for message in messages:
            assert b"MSA|AA|" in client.send(b"\x0b" + message.encode(codec) + b"\x1c\r")


def reports(ehr: FakeEhr) -> list[dict[str, list[str]]]:
    """What the EHR has got, in order: segment name -> fields of the first such segment, counted from 1 (MSH from 0)."""
    found = []
    for raw in ehr.messages:
        segments: dict[str, list[str]] = {}
        for line in raw.decode("utf-8").split("\r"):
            fields = line.split("|")
            segments.setdefault(fields[0], ["", *fields] if fields[0] == "MSH" else fields)
        found.append(segments)
    return found


def field(report: dict[str, list[str]], place: str) -> str:
    """A field such as `OBR-2`; empty where there is none."""
    name, _, number = place.partition("-")
    fields = report.get(name, [])
    return fields[int(number)] if int(number) < len(fields) else ""


def values(report: dict[str, list[str]], places: Sequence[str]) -> list[str]:
    """Several fields."""
    return [field(report, place) for place in places]


def test_order_images_report_merge_corrected_report(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """The report has the order's numbers and the patient as the EHR knows them; after the merge a correction names the
    surviving patient under the same result; the objects in the archive stay as the images are."""
    files = write_block(tmp_path / "series", attributes=IMAGES)
    study = study_uid_of(files)
    site = make_site(hl7={"port": free_port()}, rules=[RULE])
    tell(site, hl7.order("M1", name=XPN, priority="S", charset="GB 18030-2000"), codec="gb18030")
    receipts = site.send(files)
    (job,) = site.wait_for_jobs(1, "delivered")
    assert job["priority"] == 0
    (first,) = reports(neighbours.ehr)
    assert field(first, "PID-3").split("~")[0] == "P1^^^HOSP^MR"
    assert field(first, "PID-5") == "Ye^XiaoDong^^^^^L^A~葉^小東^^^^^L^I"
    assert values(first, ["ORC-2", "OBR-2", "OBR-25"]) == ["PL1^EHR", "PL1^EHR", "P"]
    assert field(first, "OBR-4").startswith("MRHEAD^MR head^L")
    assert "A1" in values(first, ["OBR-18"])
    assert values(first, ["PV1-2", "PV1-3", "PV1-19"]) == ["I", "W1^R2^B3", "V77^^^HOSP"]

    tell(site, hl7.adt("A40", "M2", patient="P2^^^HOSP^MR", prior="P1^^^HOSP^MR", name=XPN))
    site.wait_for(lambda: len(neighbours.ehr.control_ids) == 2, "the corrected report")
    site.wait_for_jobs(1, "delivered")
    second = reports(neighbours.ehr)[-1]
    assert field(second, "PID-3").split("~")[0] == "P2^^^HOSP^MR"
    assert field(second, "PID-5") == field(first, "PID-5")
    assert field(second, "OBR-25") == "C"
    same = ["ORC-2", "ORC-3", "OBR-2", "OBR-3", "OBR-4", "OBR-18"]
    assert values(second, same) == values(first, same)
    assert field(second, "OBR-22") > field(first, "OBR-22")
    assert field(second, "MSH-10") != field(first, "MSH-10")

    tell(site, hl7.report("M3"))
    story = json.loads(site.hilum("explain", study, "--json").stdout)
    site.wait_for(lambda: _reports(site, study) == ["F"], "the radiologist's report")
    assert (story["ehr"]["order"]["placer_number"], story["ehr"]["merges"]) == ("PL1", 1)
    _assert_objects_are_of_their_images(neighbours, study, tmp_path)
    assert_nothing_lost(site, files, receipts)
    assert [row["state"] for row in site.ledger.list_messages()] == ["applied"] * 3
    assert not re.search("葉|Ye\\^|19800101", site.log)


def test_a_merge_while_the_model_runs(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """The one report that leaves names who the patient is by then; nothing has to be corrected."""
    files = write_block(tmp_path / "series", attributes=IMAGES)
    site = make_site("slow", hl7={"port": free_port()})
    tell(site, hl7.order("M1", name=XPN))
    site.send(files)
    site.wait_for_jobs(1, "running")
    tell(site, hl7.adt("A40", "M2", patient="P2^^^HOSP^MR", prior="P1^^^HOSP^MR", name=XPN))
    site.wait_for(lambda: not site.ledger.unread_messages(1), "the merge to be read")
    assert site.jobs()[0]["state"] == "running"
    site.wait_for_jobs(1, "delivered")
    (found,) = reports(neighbours.ehr)
    assert field(found, "PID-3").split("~")[0] == "P2^^^HOSP^MR"
    assert values(found, ["OBR-2", "OBR-18", "OBR-25"]) == ["PL1^EHR", "A1", "P"]
    story = json.loads(site.hilum("explain", study_uid_of(files), "--json").stdout)
    assert story["ehr"]["merges"] == 1


def _reports(site: Site, study: str) -> list[str]:
    return list(json.loads(site.hilum("explain", study, "--json").stdout)["ehr"]["reports"])


def _assert_objects_are_of_their_images(neighbours: Neighbours, study: str, folder: Path) -> None:
    found = neighbours.admin.instances_of(study)
    for number, item in enumerate(found):
        file = folder / f"{number}.dcm"
        file.write_bytes(neighbours.admin.download(item.sop_instance_uid))
        result = pydicom.dcmread(file)
        assert (result.PatientID, str(result.PatientName), result.AccessionNumber) == ("P1", NAME, "A1")
        if item.sop_class_uid == SR:
            (request,) = result.ReferencedRequestSequence
            assert request.PlacerOrderNumberImagingServiceRequest == "PL1"
            assert request.AccessionNumber == "A1"
    assert any(item.sop_class_uid == SR for item in found)


def test_an_order_for_somebody_else_holds_everything(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """Nothing leaves and the reason can be seen; a person lets it go. Another study's hold ends with the EHR's correction."""
    files = write_block(tmp_path / "series", attributes=IMAGES)
    site = make_site(hl7={"port": free_port()})
    tell(site, hl7.order("M1", patient="P9^^^HOSP", name="Li^Na"))
    site.send(files)
    study = study_uid_of(files)
    site.wait_for_jobs(1, "ready")
    assert "another patient id" in site.hilum("dead-letters").stdout
    assert "another patient id" in site.hilum("explain", study).stdout
    assert neighbours.results(study).total() == 0
    assert neighbours.ehr.messages == []
    tell(site, hl7.order("M2", name=XPN, control="XO", time="20261124090000"))
    site.wait_for_jobs(1, "delivered")
    assert len(neighbours.ehr.control_ids) == 1
    assert field(reports(neighbours.ehr)[0], "PID-3").startswith("P1^^^HOSP")

    other = write_block(tmp_path / "other", attributes={**IMAGES, "AccessionNumber": "A2"}, seed="other")
    tell(site, hl7.order("M3", accession="A2", placer="PL2", filler="FL2", modality="CT", name=XPN))
    site.send(other)
    site.wait_for(lambda: any(job["state"] == "ready" for job in site.jobs()), "the other job")
    assert site.hilum("release", study_uid_of(other)).returncode == 0
    site.wait_for_jobs(2, "delivered")
    assert site.hilum("release", study_uid_of(other)).returncode == 1


def test_gateway_killed_between_acknowledgement_and_reading(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """kill -9 with messages acknowledged: after the restart each of them counts, once."""
    site = make_site(hl7={"port": free_port()})
    messages = [hl7.order(f"M{number}", accession=f"A{number}") for number in range(200)]
    tell(site, *messages)
    site.kill_gateway()
    assert len(site.ledger.list_messages(1000)) == 200
    site.start()
    tell(site, messages[-1])
    site.wait_for(lambda: not site.ledger.unread_messages(1), "the messages to be read")
    rows = site.ledger.list_messages(1000)
    assert [row["state"] for row in rows] == ["applied"] * 200
    assert rows[0]["copies"] == 2
    assert len(site.ledger.list_orders(1000)) == 200
    assert "is listening on" in next(line for line in site.hilum("check").stdout.splitlines() if " hl7 " in line)
