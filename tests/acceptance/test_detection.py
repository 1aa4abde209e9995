"""A detector, from images to archive and EHR: boxes as its bundle gives them in world coordinates."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.support.answers import DETECTION
from tests.support.block import write_block
from tests.support.detector import write_detector
from tests.support.neighbours import SR, Neighbours, assert_promises
from tests.support.site import Site

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_boxes_go_all_the_way(tmp_path: Path, neighbours: Neighbours) -> None:
    """A block in MR images: one box in Orthanc's report, around the block in the patient, and one finding in the ORU."""
    output = DETECTION | {"boxes": {"mode": "cccwhd", "coordinates": "lps", "score": 0.3, "overlap": 0.2}}
    bundle = write_detector(tmp_path / "bundle", output, orientation="RAS")
    files = write_block(tmp_path / "images")
    with Site(tmp_path / "site", neighbours.configuration(str(bundle))) as site:
        receipts = site.send(files)
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered", site.log
        (finding,) = job["outcome"]["findings"]
        assert finding["label"] == "Pleural effusion 1"  # the larger class of this detector
        assert neighbours.results(job["study_uid"])[SR] == 2
        stored = [
            pydicom.dcmread(BytesIO(neighbours.admin.download(item.sop_instance_uid)))
            for item in neighbours.admin.instances_of(job["study_uid"])
            if item.sop_class_uid == SR
        ]
        data = next(one for one in stored if "data only" in one.SeriesDescription)
        points = [e.value for e in data.iterall() if e.keyword == "GraphicData"]
        corners = np.concatenate([np.reshape(one, (-1, 3)) for one in points])
        # The block: slices 6 to 17 of 24, 3 mm apart; rows and columns 8 to 23 of 32, 1 mm; the middle is the origin.
        assert np.allclose(corners.min(axis=0), [-8, -8, -18], atol=0.01)
        assert np.allclose(corners.max(axis=0), [8, 8, 18], atol=0.01)
        assert_promises(site, neighbours, files, receipts)
    (message,) = [text for text in (one.decode() for one in neighbours.ehr.messages) if "Pleural effusion 1" in text]
    assert "Certainty of Finding" in message
