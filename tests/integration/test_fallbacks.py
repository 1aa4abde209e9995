"""Results for a PACS that takes only some classes: which form arrives in the end, over real associations, from the real outbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from gateway.deliver.cstore import CStorePacs
from gateway.deliver.dispatch import Dispatcher, Limits, through_pacs
from gateway.deliver.plan import plan
from gateway.deliver.settings import DicomDestination
from gateway.domain.states import JobEvent
from gateway.store.spool import LocalSpool
from tests.support.ledgers import PACS, Story
from tests.support.outcomes import outcome
from tests.support.result_set import CASES, result_set
from tests.support.scp import Peer, storage_peer

LabelMapSegmentationStorage = "1.2.840.10008.5.1.4.1.1.66.7"

WANTED = {
    "results": ["seg", "sr"],
    "seg_encoding": "labelmap",
    "fallbacks": {"seg": ["sc"], "sr": ["sr-comprehensive"]},
    "calling_ae_title": "AI_ROOM_2",
    "limits": {"batch": 2},
}


@pytest.mark.parametrize(
    ("classes", "syntaxes", "arrived"),
    [
        (
            [LabelMapSegmentationStorage, SegmentationStorage, Comprehensive3DSRStorage],
            [RLELossless, ExplicitVRLittleEndian],
            {"seg-labelmap", "sr"},
        ),
        (
            [LabelMapSegmentationStorage, SegmentationStorage, ComprehensiveSRStorage],
            [ExplicitVRLittleEndian],  # so that it cannot take the label map, which is compressed
            {"seg", "sr-comprehensive"},
        ),
        ([SecondaryCaptureImageStorage, ComprehensiveSRStorage], [ImplicitVRLittleEndian], {"sc", "sr-comprehensive"}),
    ],
    ids=["takes all", "no label maps, no 3D reports", "pictures in Implicit VR"],
)
def test_each_pacs_gets_the_best_form_it_takes(
    tmp_path: Path, classes: Sequence[str], syntaxes: Sequence[str], arrived: set[str]
) -> None:
    """LABELMAP, else BINARY, else pictures; Comprehensive 3D SR, else Comprehensive SR; nothing else, and all once."""
    with storage_peer(classes=classes, syntaxes=syntaxes, titles=["AI_ROOM_2"]) as peer:
        story, roles = _delivered(tmp_path, peer)
    rows = story.ledger.list_deliveries()
    story.ledger.close()
    assert _arrived(rows) == arrived
    assert {roles[uid] for uid in peer.stored} == arrived
    assert sorted(peer.requests) == sorted(peer.stored)
    assert {row["state"] for row in rows} <= {"delivered", "substituted"}
    if ImplicitVRLittleEndian in syntaxes:
        for uid, data in peer.stored.items():
            assert dcmread(BytesIO(data), force=True).SOPInstanceUID == uid  # without file meta: Implicit VR


def _arrived(rows: Sequence[dict]) -> set[str]:  # type: ignore[type-arg]
    """Roles of what was delivered."""
    return {row["role"] for row in rows if row["state"] == "delivered"}


def _delivered(tmp_path: Path, peer: Peer) -> tuple[Story, dict[str, str]]:
    """The outbox worked off, and each object's role."""
    settings = DicomDestination.model_validate(
        {"kind": "dicom", "ae_title": "PEER", "host": "127.0.0.1", "port": peer.port, **WANTED}
    )
    case = replace(CASES["axial"], roles=("seg", "sr", "sc", *settings.forms))
    made = result_set(tmp_path / "made", case)
    story, spool = Story(tmp_path), LocalSpool(tmp_path / "spool")
    story.queue()
    for event in (JobEvent.CLAIMED, JobEvent.COMMITTED):
        story.job_events[event]()
    kept = [
        replace(one, file=spool.put(one.sop_instance_uid, [Path(made.order.output_dir, one.file).read_bytes()]))
        for one in made.objects
    ]
    (job,) = story.ledger.ready_jobs()
    finished = replace(job, draft=replace(job.draft, deliver=(PACS,)), outcome=outcome(objects=tuple(kept)))
    story.ledger.plan(job.id, plan(finished, {PACS: settings.roles}, (), {PACS: settings.substitutes}))
    send = through_pacs(CStorePacs(settings, "HILUM"), spool)
    dispatcher = Dispatcher(PACS, send, story.ledger, story.ledger.clock, limits=Limits(batch=settings.limits.batch))
    while dispatcher.deliver_due():
        pass
    return story, {one.sop_instance_uid: one.role for one in kept}
