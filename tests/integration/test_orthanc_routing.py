"""The configuration in orthanc-config/, in a real Orthanc: studies go to Hilum, results never come back."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage, SegmentationStorage

from gateway.deliver.cstore import CStorePacs
from gateway.deliver.orthanc import OrthancAdmin
from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.deliver.stow import StowPacs
from gateway.domain.job import Verdict
from gateway.domain.ports import ObjectFile
from tests.support.objects import write_object
from tests.support.orthanc import RunningOrthanc, free_port, running_orthanc
from tests.support.scp import Peer, storage_peer

pytestmark = pytest.mark.neighbour
FOLDER = Path(__file__).parents[2] / "orthanc-config"


def shipped(hilum_port: int) -> dict[str, Any]:
    """orthanc.json with this machine's paths and ports."""
    text = (FOLDER / "orthanc.json").read_text(encoding="utf-8")
    settings: dict[str, Any] = json.loads(text)
    settings["DicomModalities"]["HILUM"]["Port"] = hilum_port
    settings["LuaScripts"] = [str(FOLDER / "route-to-hilum.lua")]
    return {**settings, "StableAge": 1}


@pytest.fixture
def hilum() -> Iterator[Peer]:
    classes = (MRImageStorage, SegmentationStorage, SecondaryCaptureImageStorage)
    with storage_peer(classes=classes) as peer:
        yield peer


@pytest.fixture
def orthanc(tmp_path: Path, hilum: Peer) -> Iterator[RunningOrthanc]:
    with running_orthanc(tmp_path / "orthanc", shipped(hilum.port)) as server:
        yield server


def send(orthanc: RunningOrthanc, *objects: ObjectFile, title: str = "CT1") -> None:
    """Stores objects in Orthanc by C-STORE."""
    destination = DicomDestination(kind="dicom", ae_title="ORTHANC", host="127.0.0.1", port=orthanc.dicom_port)
    receipts = CStorePacs(destination, title).store(objects)
    assert {receipt.verdict for receipt in receipts.values()} == {Verdict.ACCEPTED}


def until(condition: Callable[[], bool], orthanc: RunningOrthanc, seconds: float = 20) -> None:
    """Waits for something to become true; shows Orthanc's log where it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, orthanc.log.read_text(errors="replace")[-5000:]
        time.sleep(0.05)


def image(directory: Path, name: str, study: str) -> ObjectFile:
    """An MR image."""
    return write_object(directory, name, sop_class=MRImageStorage, study=study)


def test_a_stable_study_arrives_complete_and_unchanged(tmp_path: Path, orthanc: RunningOrthanc, hilum: Peer) -> None:
    """Each image of a study stored in Orthanc reaches Hilum once, with the same dataset."""
    images = [image(tmp_path, f"i{number}", "routed") for number in range(3)]
    send(orthanc, *images)
    until(lambda: len(hilum.requests) >= 3, orthanc)
    assert sorted(hilum.requests) == sorted(one.sop_instance_uid for one in images)
    for one in images:
        assert one.path.read_bytes().endswith(hilum.stored[one.sop_instance_uid])


def by_algorithm() -> Dataset:
    """Contributing equipment 99IHE 1630."""
    purpose, equipment = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "1630", "99IHE", "Processing by AI"
    equipment.PurposeOfReferenceCodeSequence = Sequence([purpose])
    equipment.Manufacturer = "Somebody"
    return equipment


def test_results_are_never_sent_to_hilum(tmp_path: Path, orthanc: RunningOrthanc, hilum: Peer) -> None:
    """A result is known by who sent it, by its equipment, by its manufacturer, or by its UID where it came by STOW-RS.

    A second study, stored after all of them, is the proof that the script has had its chance.
    """
    first = image(tmp_path, "first", "loop")
    send(orthanc, first)
    until(lambda: len(hilum.requests) == 1, orthanc)

    foreign = {"SOPInstanceUID": "1.2.3.4.5"}
    sent_by_hilum = write_object(tmp_path, "seg1", study="loop", change={"SeriesInstanceUID": "1.2.1"})
    send(orthanc, sent_by_hilum, title="HILUM")
    marked = write_object(
        tmp_path,
        "seg2",
        study="loop",
        change={"SeriesInstanceUID": "1.2.2", "ContributingEquipmentSequence": Sequence([by_algorithm()]), **foreign},
    )
    named = write_object(
        tmp_path,
        "sc",
        sop_class=SecondaryCaptureImageStorage,
        study="loop",
        change={"SeriesInstanceUID": "1.2.3", "Manufacturer": "Hilum project"},
    )
    send(orthanc, marked, named)
    by_web = write_object(tmp_path, "seg3", study="loop", change={"SeriesInstanceUID": "1.2.4"})
    web = StowPacs(DicomwebDestination(kind="dicomweb", url=orthanc.dicomweb))
    assert web.store([by_web])[by_web.sop_instance_uid].verdict is Verdict.ACCEPTED
    study = OrthancAdmin(orthanc.url).studies()[0]
    assert len(OrthancAdmin(orthanc.url).instances_of(study)) == 5
    until(lambda: stable(orthanc), orthanc)

    last = image(tmp_path, "last", "another")
    send(orthanc, last)
    until(lambda: last.sop_instance_uid in hilum.requests, orthanc)
    assert hilum.requests == [first.sop_instance_uid, last.sop_instance_uid]


def stable(orthanc: RunningOrthanc) -> bool:
    """Whether no study of Orthanc waits for more images."""
    with urllib.request.urlopen(f"{orthanc.url}/studies?expand", timeout=5) as answer:  # noqa: S310 - our own address
        return all(study["IsStable"] for study in json.load(answer))


def test_a_segmentation_of_somebody_else_is_sent(tmp_path: Path, orthanc: RunningOrthanc, hilum: Peer) -> None:
    """A contour drawn at a workstation is no result of ours."""
    drawn = write_object(tmp_path, "drawn", study="drawn", change={"SOPInstanceUID": "1.2.3.4.6"})
    send(orthanc, drawn, title="WORKSTATION")
    until(lambda: hilum.requests == ["1.2.3.4.6"], orthanc)


def test_late_images_are_sent(tmp_path: Path, orthanc: RunningOrthanc, hilum: Peer) -> None:
    """An image added to a series that was sent before reaches Hilum too."""
    send(orthanc, image(tmp_path, "early", "late"))
    until(lambda: len(hilum.requests) == 1, orthanc)
    late = image(tmp_path, "late", "late")
    send(orthanc, late)
    until(lambda: late.sop_instance_uid in hilum.stored, orthanc)


def test_studies_that_could_not_be_sent_go_with_the_next_one(tmp_path: Path) -> None:
    """While Hilum is away a transfer fails; the study goes out as soon as another becomes stable."""
    port = free_port()
    with running_orthanc(tmp_path / "orthanc", shipped(port)) as orthanc:
        missed = image(tmp_path, "missed", "missed")
        send(orthanc, missed)
        until(lambda: "tried again with the next study" in orthanc.log.read_text(errors="replace"), orthanc)
        with storage_peer(classes=(MRImageStorage,)) as hilum:
            OrthancAdmin(orthanc.url).add_modality("HILUM", "HILUM", "127.0.0.1", hilum.port)
            send(orthanc, image(tmp_path, "next", "next"))
            until(lambda: len(hilum.stored) == 2, orthanc)
            assert missed.sop_instance_uid in hilum.stored


def test_the_shipped_configuration_knows_hilum(orthanc: RunningOrthanc, hilum: Peer) -> None:
    """What `hilum check` asks for is there."""
    admin = OrthancAdmin(orthanc.url)
    assert admin.knows_modality("HILUM", "HILUM", "127.0.0.1", hilum.port)
    assert not admin.knows_modality("HILUM", "HILUM", "127.0.0.1", hilum.port + 1)
    assert admin.has_dicomweb()
    assert admin.version()
