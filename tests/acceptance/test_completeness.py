"""Studies released by evidence, all the way: a real PACS that is asked, rules that require, limits that end the waiting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from gateway.domain.job import Verdict
from tests.acceptance.conftest import MakeSite
from tests.support.block import write_block
from tests.support.neighbours import Neighbours, assert_nothing_lost, study_uid_of
from tests.support.series import dataset_sha256
from tests.support.site import Site, send

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]
LONG = {"quiet": "10m", "limit": "1h"}  # nothing here is released because time has passed


def _asking(neighbours: Neighbours, site_configuration: dict[str, Any], way: str) -> dict[str, Any]:
    """Configuration of a site whose scanner's studies are counted by the PACS."""
    orthanc = neighbours.orthanc
    query = (
        {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port}
        if way == "C-FIND"
        else {"url": f"{orthanc.url}/dicom-web"}
    )
    peers = [{"ae_title": title, "host": "127.0.0.1", "query": query} for title in ("SCANNER", "ORTHANC")]
    return {"dicom": {"peers": peers}, "rules": [site_configuration["rules"][0] | {"hold": LONG}]}


def _make(make_site: MakeSite, neighbours: Neighbours, way: str) -> Site:
    return make_site(**_asking(neighbours, neighbours.configuration(""), way))


def test_a_study_whose_count_the_pacs_knows(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """Eight slices, all of which the PACS has: the job starts without waiting for any timer, and the story says why."""
    files = write_block(tmp_path / "in")[6:14]
    send(files, neighbours.orthanc.dicom_port, called="ORTHANC")
    site = _make(make_site, neighbours, "C-FIND")
    site.send(files)
    (job,) = site.wait_for_jobs(1, "delivered")
    told = json.loads(site.hilum("explain", job["study_uid"], "--json").stdout)
    assert "by C-FIND reports 8 instances in 1 series, all here" in told["study"]["reason"] + str(told["events"])
    story = [event["what"] for event in told["events"]]
    order = [story.index(what) for what in ("study opened", "evidence", "study released", "job queued", "job started")]
    assert order == sorted(order)
    assert job["started_at"] - told["study"]["last_stored_at"] < 600, "the quiet time had no part in it"
    assert "all here" in site.hilum("explain", job["study_uid"]).stdout
    assert job["outcome"]["flags"] == []


def test_slices_that_the_pacs_has_and_did_not_send_yet(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """The study waits for the rest, and becomes one job with all of it."""
    files = write_block(tmp_path / "in")[6:14]
    send(files, neighbours.orthanc.dicom_port, called="ORTHANC")
    site = _make(make_site, neighbours, "QIDO-RS")
    site.send(files[:5])
    study = study_uid_of(files)
    site.wait_for(lambda: site.ledger.explain(study)["evidence"], "the PACS to be asked")
    site.send(files[5:])
    (job,) = site.wait_for_jobs(1, "delivered")
    assert job["outcome"]["source_instances"] == 8
    assert [event["what"] for event in site.ledger.explain(study)["events"]].count("study released") == 1


def test_the_pacs_is_down(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """Nobody to ask: the quiet time decides, and the story tells both."""
    files = write_block(tmp_path / "in")
    query = {"ae_title": "NOBODY", "host": "127.0.0.1", "port": neighbours.ehr.port}
    site = make_site(dicom={"peers": [{"ae_title": "SCANNER", "host": "127.0.0.1", "query": query}]})
    site.send(files)
    (job,) = site.wait_for_jobs(1, "delivered")
    events = site.ledger.explain(job["study_uid"])["events"]
    (reason,) = [event["detail"] for event in events if event["what"] == "study released"]
    assert "quiet for" in reason
    assert job["state"] == "delivered"


def test_a_series_that_a_rule_cannot_do_without(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """It never comes: held for a person, who has it run all the same."""
    files = write_block(tmp_path / "in")
    rule = neighbours.configuration("")["rules"][0]
    hold = {"quiet": "500ms", "limit": "2s", "at_limit": "quarantine", "require": ['series.description == "T1 late"']}
    site = make_site(rules=[rule | {"hold": hold}])
    site.send(files)
    site.wait_for(lambda: site.ledger.dead_letters()["studies"], "the study to be held")
    (study,) = site.ledger.dead_letters()["studies"]
    assert 'none meets series.description == "T1 late"' in study["reason"]
    assert site.jobs() == []
    assert site.hilum("replay", "study", study["uid"]).returncode == 0
    (job,) = site.wait_for_jobs(1, "delivered")
    assert "0 of 1 required series here" in job["outcome"]["flags"][0]


def test_incomplete_at_the_limit_is_flagged_in_every_result(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """The PACS has more than it ever sends: what came is run, and nobody can read the result without knowing."""
    files = write_block(tmp_path / "in")
    send(files, neighbours.orthanc.dicom_port, called="ORTHANC")
    configuration = _asking(neighbours, neighbours.configuration(""), "C-FIND")
    configuration["rules"][0]["hold"] = {"quiet": "5s", "limit": "8s"}  # the PACS answers within 5 s on any machine
    site = make_site(**configuration)
    site.send(files[:20])
    (job,) = site.wait_for_jobs(1, "delivered")
    (flag,) = job["outcome"]["flags"]
    assert "4 of them not here" in flag
    (message,) = neighbours.ehr.messages
    assert b"The study may be incomplete" in message


def test_a_sender_that_is_cut_off(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """Nobody knows whether there was more: the quiet time decides, and no result hides it. What comes later mends it."""
    files = write_block(tmp_path / "in")
    site = make_site()
    sender = AE(ae_title="SCANNER")
    sender.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = sender.associate("127.0.0.1", site.port, ae_title="HILUM")
    assert {association.send_c_store(pydicom.dcmread(file)).Status for file in files[:20]} == {0}
    association.abort()
    (job,) = site.wait_for_jobs(1, "delivered")
    (flag,) = job["outcome"]["flags"]
    assert "the last sender was cut off" in flag
    assert b"The study may be incomplete" in neighbours.ehr.messages[0]
    site.send(files[20:])
    site.wait_for_jobs(1, "retracted")
    newer, _ = site.wait_for_jobs(2, "delivered", "retracted")
    assert newer["outcome"]["flags"] == []


def test_what_comes_again_and_what_comes_late(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """One pixel changed under the same UID: the first copy stays, nothing runs anew. Late slices: a second version."""
    files = write_block(tmp_path / "in")
    site = make_site()
    first = site.send(files[:-4])
    (older,) = site.wait_for_jobs(1, "delivered")
    changed = pydicom.dcmread(files[3])
    changed.PixelData = bytes([changed.PixelData[0] ^ 1]) + changed.PixelData[1:]
    changed.save_as(tmp_path / "changed.dcm")
    (receipt,) = site.send([tmp_path / "changed.dcm"], calling="OTHER").values()
    assert "0x0111" in receipt.answer or receipt.verdict is not Verdict.ACCEPTED
    (conflict,) = site.ledger.dead_letters()["conflicts"]
    kept = site.ledger.instance(changed.SOPInstanceUID)
    assert kept is not None
    assert kept.sha256 == dataset_sha256(files[3]) != conflict["sha256"]
    second = site.send(files[-4:])
    site.wait_for_jobs(1, "retracted")
    newer, before = site.wait_for_jobs(2, "delivered", "retracted")
    assert (before["id"], before["state"], newer["supersedes"]) == (older["id"], "retracted", older["id"])
    assert [job["outcome"]["source_instances"] for job in (newer, before)] == [24, 20]
    assert_nothing_lost(site, files, first | second)
