"""The PACS and the EHR that a test's site delivers to, and the promises that must hold for what they got."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from gateway.commands.orthanc import DemoOrthanc
from gateway.deliver.orthanc import OrthancAdmin
from gateway.domain.job import Receipt, Verdict
from gateway.domain.roles import USUAL
from gateway.testing import FakeEhr
from tests.support.series import dataset_sha256
from tests.support.site import Site


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """What stands around a gateway."""

    orthanc: DemoOrthanc
    ehr: FakeEhr
    admin: OrthancAdmin

    def configuration(self, bundle: str) -> dict[str, Any]:
        """The part of hilum.yaml that speaks of them."""
        pacs = {"kind": "dicom", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": self.orthanc.dicom_port}
        rule = {"name": "every MR", "when": 'series.modality == "MR"', "run": ["model"], "deliver": ["pacs", "ehr"]}
        return {
            "destinations": {
                "pacs": {**pacs, "results": [*USUAL]},
                "ehr": {"kind": "hl7", "host": "127.0.0.1", "port": self.ehr.port},
            },
            "models": {"model": {"bundle": bundle}},
            "rules": [{**rule, "hold": {"quiet": "1s"}}],
        }

    def results(self, study_uid: str) -> Counter[str]:
        """SOP class UID -> how many instances of it the PACS has."""
        return Counter(item.sop_class_uid for item in self.admin.instances_of(study_uid))


SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"


def study_uid_of(files: list[Path]) -> str:
    """Study Instance UID of a series on disk."""
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def assert_promises(site: Site, neighbours: Neighbours, files: list[Path], receipts: dict[str, Receipt]) -> None:
    """What must hold after any fault: every acknowledged instance is there byte for byte, every job has an end with a
    reason, one result set in the PACS and one message in the EHR for each job that was delivered."""
    assert_nothing_lost(site, files, receipts)
    jobs = site.jobs()
    for job in jobs:
        assert job["state"] in ("delivered", "retracted", "quarantined", "dead", "superseded"), job
        assert job["state"] == "delivered" or job["reason"], job
    delivered = [job for job in jobs if job["state"] in ("delivered", "retracted")]
    notes = Counter(row["job_id"] for row in site.ledger.list_deliveries(10_000) if row["role"] == "rejection")
    for study in {job["study_uid"] for job in delivered}:
        made = [item for job in delivered if job["study_uid"] == study for item in job["outcome"]["objects"]]
        expected = Counter(item["sop_class_uid"] for item in made)
        expected[KEY_OBJECT_SELECTION] += sum(notes[job["id"]] for job in delivered if job["study_uid"] == study)
        assert neighbours.results(study) == +expected
    # Of a version that was withdrawn the message may have gone out before; of each one that stands it has, once.
    sent = {row["job_id"]: row["key"] for row in site.ledger.list_deliveries(10_000) if row["role"] == "oru"}
    standing = {sent[job["id"]] for job in delivered if job["state"] == "delivered"}
    assert standing <= neighbours.ehr.control_ids <= set(sent.values())


def assert_nothing_lost(site: Site, files: list[Path], receipts: dict[str, Receipt]) -> None:
    """Every instance that was answered with success is in the spool with the bytes that were sent."""
    digests = {str(pydicom.filereader.read_file_meta_info(file).MediaStorageSOPInstanceUID): file for file in files}
    for uid, receipt in receipts.items():
        if receipt.verdict is Verdict.ACCEPTED:
            stored = site.ledger.instance(pydicom.uid.UID(uid))  # type: ignore[arg-type]
            assert stored is not None, f"{uid} was acknowledged and is gone"
            on_disk = site.directory / "data" / "spool" / "objects" / stored.file
            assert dataset_sha256(on_disk) == dataset_sha256(digests[uid]) == stored.sha256
