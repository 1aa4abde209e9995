"""Delivery with proof, the whole way: a PACS that misbehaves in every way it can, and a real one that commits."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from gateway.testing import FakeEhr
from tests.acceptance.conftest import MakeSite
from tests.support.block import write_block
from tests.support.bundles import write_bundle
from tests.support.neighbours import KEY_OBJECT_SELECTION, Neighbours, assert_promises, study_uid_of
from tests.support.orthanc import free_port
from tests.support.scp import Commits, Peer, storage_peer
from tests.support.site import Site


class Pacs:
    """A scripted PACS that can be restarted; what it has stays."""

    def __init__(self) -> None:
        self.peer, self.port = Peer(), free_port()
        self._running = ExitStack()

    def start(self, answers: list[int | str], ways: list[str | int], node_port: int) -> None:
        """It takes segmentations and Comprehensive SR alone."""
        classes = [SegmentationStorage, ComprehensiveSRStorage, KEY_OBJECT_SELECTION]
        commits = Commits(ways, port=node_port)
        made = storage_peer(answers, classes=classes, find=True, commits=commits, port=self.port, peer=self.peer)
        self._running.enter_context(made)

    def stop(self) -> None:
        """Nobody listens any more."""
        self._running.close()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs()
    yield made
    made.stop()


@pytest.fixture
def ehr() -> Iterator[FakeEhr]:
    with FakeEhr() as made:
        yield made


@contextmanager
def blackhole(port: int) -> Iterator[None]:
    """A port that takes connections, and never a word."""
    with socket.create_server(("127.0.0.1", port)):
        yield


def scripted_site(tmp_path: Path, pacs: Pacs, ehr: FakeEhr, timeout: str, archive: int | None = None) -> Site:
    """Delivers to the scripted PACS with proof, to the EHR, and to an archive at a port where there is one."""
    bundle = write_bundle(tmp_path / "bundle", behaviour="threshold")
    deliver = ["pacs", "ehr", *(["archive"] if archive else [])]
    rule = {"name": "every MR", "when": 'series.modality == "MR"', "run": ["model"], "deliver": deliver}
    other = {"kind": "dicom", "ae_title": "PEER", "host": "127.0.0.1", "port": archive, "results": ["seg", "sr", "sc"]}
    return Site(
        tmp_path / "site",
        {
            "destinations": {
                "pacs": {
                    "kind": "dicom", "ae_title": "PEER", "host": "127.0.0.1", "port": pacs.port,
                    "results": ["seg", "sr", "sr-data"], "verify": "commitment",
                    "fallbacks": {"sr": ["sr-comprehensive"], "sr-data": ["sr-data-comprehensive"]},
                    "commitment": {"timeout": timeout, "linger": "0s"},
                    **({"timeouts": {"acse": "1s"}} if archive else {}),
                },
                **({"archive": {**other, "verify": "readback"}} if archive else {}),
                "ehr": {"kind": "hl7", "host": "127.0.0.1", "port": ehr.port},
            },
            "models": {"model": {"bundle": str(bundle)}},
            "rules": [{**rule, "hold": {"quiet": "1s"}}],
        },
    )  # fmt: skip


def test_a_pacs_that_misbehaves_in_every_way(tmp_path: Path, pacs: Pacs, ehr: FakeEhr) -> None:
    """It answers 0xA700 for a while, refuses the class of the reports, aborts at the third object, commits half, is
    started again, never answers, and answers twice: everything arrives once, and `hilum deliveries` tells the story."""
    files = write_block(tmp_path / "series")
    with scripted_site(tmp_path, pacs, ehr, "3s") as site:
        pacs.start([0xA700, 0, "abort", 0], ["half", "silent"], site.port)
        site.send(files)
        site.wait_for(lambda: len(pacs.peer.statuses) >= 1, "the report that commits half")
        pacs.stop()
        assert ehr.control_ids == frozenset()
        pacs.start([0], ["silent", "twice"], site.port)
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered"
        site.wait_for(lambda: len(ehr.control_ids) == 1, "the message")
        shown = json.loads(site.hilum("deliveries", "--json").stdout)
        made = {one["role"]: one["sop_instance_uid"] for one in job["outcome"]["objects"]}
        _assert_each_arrived_once(pacs.peer, made)
        _assert_story(shown)
        assert "other form sent" in site.hilum("explain", study_uid_of(files)).stdout
        assert "0xA700 out of resources" in site.hilum("deliveries").stdout


def _rows(site: Site, destination: str) -> list[dict]:  # type: ignore[type-arg]
    return [row for row in site.ledger.list_deliveries() if row["destination"] == destination]


def _states(site: Site, destination: str) -> set[str]:
    """Of all that is planned for a destination."""
    return {row["state"] for row in _rows(site, destination)}


def _assert_each_arrived_once(peer: Peer, made: dict[str, str]) -> None:
    """One of each object in a form that the PACS takes, and nothing else."""
    wanted = {made[role] for role in ("seg", "sr-comprehensive", "sr-data-comprehensive")}
    assert set(peer.stored) == wanted
    assert set(peer.requests) == wanted


def _assert_story(deliveries: list[dict]) -> None:  # type: ignore[type-arg]
    by_role = {row["role"]: row for row in deliveries}
    assert {role: row["state"] for role, row in by_role.items()} == {
        "seg": "delivered",
        "sr": "substituted",
        "sr-data": "substituted",
        "sr-comprehensive": "delivered",
        "sr-data-comprehensive": "delivered",
        "oru": "delivered",
    }
    told = " | ".join(f"{event['what']}: {event['detail']}" for row in deliveries for event in row["story"])
    for line in (
        "0xA700 out of resources",
        "other form sent: sr to pacs: no presentation context for Comprehensive 3D SR Storage",
        "the peer ended the association",
        "not committed: 0x0112 no such object instance",
    ):
        assert line in told, line
    proven = [row["story"][-1]["detail"] for row in deliveries if row["state"] == "delivered" and row["role"] != "oru"]
    assert all("storage commitment" in detail for detail in proven), proven
    last = max(row["delivered_at"] for row in deliveries if row["role"] != "oru" and row["delivered_at"])
    assert by_role["oru"]["delivered_at"] >= last


def test_gateway_killed_between_request_and_report(tmp_path: Path, pacs: Pacs, ehr: FakeEhr) -> None:
    """F18, F23: a PACS takes connections and is silent, while another archive gets everything. When it speaks, kill -9 with the
    request out; the report comes to the next gateway, which knows the transaction. Each has each object once."""
    files = write_block(tmp_path / "series")
    classes = [SegmentationStorage, Comprehensive3DSRStorage, SecondaryCaptureImageStorage]
    with (
        storage_peer(classes=classes, find=True) as archive,
        scripted_site(tmp_path, pacs, ehr, "10m", archive.port) as site,
    ):
        with blackhole(pacs.port):
            site.send(files)
            site.wait_for(lambda: _states(site, "archive") == {"delivered"}, "everything in the other archive")
            silent = "no answer to the association request within 1 s"
            site.wait_for(lambda: any(row["last_answer"] == silent for row in _rows(site, "pacs")), "silence")
            assert not {"stored", "delivered"} & _states(site, "pacs")
        pacs.start([0], ["later"], site.port)
        # What was stored or asked and not yet written down, or written down and not yet asked, is rightly done once more.
        site.wait_for(lambda: _asked(site, pacs.peer), "the requests for all that is stored")
        site.kill_gateway()
        site.start()
        pacs.peer.report.set()
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered"
        assert pacs.peer.statuses == [0] * len(set(pacs.peer.transactions))
        assert len(pacs.peer.requests) == len(pacs.peer.stored) == 3
        assert sorted(archive.requests) == sorted(row["key"] for row in _rows(site, "archive"))
        site.wait_for(lambda: len(ehr.control_ids) == 1, "the message")


def _asked(site: Site, peer: Peer) -> bool:
    """Whether three deliveries wait for proof, and the peer has had the requests for all of them."""
    waiting = [row["transaction_uid"] for row in site.ledger.list_deliveries() if row["state"] == "stored"]
    return len(waiting) == 3 and set(waiting) <= set(peer.transactions)


def test_orthanc_commits_late_slices_replace_and_a_recall_withdraws(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """A real Orthanc with storage commitment on another association. A new version names the old one and withdraws it by a
    rejection note; a recall of the model withdraws the new one too, and cancels its report. Every note is committed."""
    files = write_block(tmp_path / "head")
    configuration = neighbours.configuration("unused")["destinations"]
    configuration["pacs"] |= {"verify": "commitment", "profile": "orthanc"}
    site = make_site(destinations=configuration)
    neighbours.admin.add_modality("hilum", "HILUM", "127.0.0.1", site.port)
    first = site.send(files[:-4])
    site.wait_for_jobs(1, "delivered")
    second = site.send(files[-4:])
    site.wait_for_jobs(1, "retracted")
    newer, older = site.wait_for_jobs(2, "retracted", "delivered")
    assert (newer["state"], older["state"], newer["supersedes"]) == ("delivered", "retracted", older["id"])
    assert_promises(site, neighbours, files, first | second)
    _assert_predecessor(neighbours, newer, older)
    recalled = json.loads(site.hilum("recall", newer["model_digest"], "--reason", "safety", "--json").stdout)
    assert [(one["job"], one["message"]) for one in recalled["withdrawn"]] == [(newer["id"], True)]
    site.wait_for_jobs(2, "retracted")
    rows = [row for row in site.ledger.list_deliveries() if row["destination"] == "pacs"]
    assert {row["last_answer"] for row in rows} == {"storage commitment"}
    notes = [dcmread(BytesIO(neighbours.admin.download(row["key"]))) for row in rows if row["role"] == "rejection"]
    assert sorted(note.ConceptNameCodeSequence[0].CodeValue for note in notes) == ["113001", "113037"]
    (order,) = [line for line in neighbours.ehr.messages[-1].decode().split("\r") if line.startswith("OBR")]
    assert order.split("|")[25] == "X"
    assert json.loads(site.hilum("recall", newer["model_digest"], "--json").stdout)["withdrawn"] == []


def _assert_predecessor(neighbours: Neighbours, newer: dict, older: dict) -> None:  # type: ignore[type-arg]
    """The report in the PACS says which one it replaces."""
    reports = [
        next(item["sop_instance_uid"] for item in job["outcome"]["objects"] if item["role"] == "sr")
        for job in (newer, older)
    ]
    document = dcmread(BytesIO(neighbours.admin.download(reports[0])))
    (series,) = document.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == reports[1]
