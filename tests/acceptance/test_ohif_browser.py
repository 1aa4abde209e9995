"""The whole way to the eye: a head MR through Hilum, and its SEG in OHIF in a real browser, from Hilum itself and from Orthanc."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gateway.commands.send import find_objects, send_objects
from gateway.web.links import viewer_link
from tests.support.head import write_head
from tests.support.neighbours import Neighbours
from tests.support.ohif import Ohif, ohif, reddish
from tests.support.site import Site

Painted = dict[str, dict[int, int]]


@contextmanager
def _viewer_beside(site: Site, dicomweb: str) -> Iterator[str]:
    """`hilum viewer` on another archive; gives its URL."""
    command = [sys.executable, "-m", "gateway.cli", "viewer", "--config", str(site.config), "--dicomweb", dicomweb]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().removesuffix("/viewer/")
        finally:  # a test that fails would otherwise wait for it for ever
            process.terminate()


def _in_file(path: Path) -> Painted:
    """Voxels of each segment on each source image, by the SEG's own frames."""
    seg = pydicom.dcmread(path)
    painted: dict[str, Counter[int]] = {}
    for frame, item in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        painted.setdefault(source, Counter())[number] += int(np.count_nonzero(frame))
    return {uid: dict(of) for uid, of in painted.items() if sum(of.values())}


def _assert_drawn(viewer: Ohif, painted: Painted, files: list[Path]) -> None:
    """On slices with much, little and none of the mask, as much is coloured as the mask is large."""
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    voxel = float(first.PixelSpacing[0]) * float(first.PixelSpacing[1])
    by_size = sorted(painted, key=lambda uid: sum(painted[uid].values()))
    for uid in (by_size[-1], by_size[len(by_size) // 2]):
        viewer.show(uid)
        picture, scale = viewer.viewport()
        assert reddish(picture) == pytest.approx(sum(painted[uid].values()) * voxel * scale**2, rel=0.1)
    uids = {str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}
    viewer.show(min(uids - painted.keys()))
    assert reddish(viewer.viewport()[0]) == 0
    viewer.show(by_size[-1])


def test_the_overlay_is_on_the_screen(tmp_path: Path, neighbours: Neighbours) -> None:
    """The link of the job opens with the SEG on; every voxel on its slice; colours where the mask is, and nowhere else."""
    files = write_head(tmp_path / "head")
    with Site(tmp_path / "site", neighbours.configuration("builtin:brain_mask")) as site:
        site.send(files)
        send_objects(find_objects(tmp_path / "head"), "127.0.0.1", neighbours.orthanc.dicom_port, "ORTHANC", "SCANNER")
        [job] = site.wait_for_jobs(1)
        assert job["state"] == "delivered", job
        [seg] = [item for item in job["outcome"]["objects"] if item["role"] == "seg"]
        expected = _in_file(site.directory / "data" / "spool" / "objects" / seg["file"])
        assert len(expected) > 50
        here = f"http://127.0.0.1:{site.status['http_port']}"
        link = viewer_link(here, job["study_uid"], job["outcome"]["objects"])
        assert link in site.hilum("explain", job["study_uid"]).stdout
        with (
            _viewer_beside(site, f"{neighbours.orthanc.url}/dicom-web") as there,
            ohif(tmp_path / "profile") as viewer,
        ):
            for base in (here, there):
                viewer.open(link.replace(here, base))
                assert viewer.painted() == expected, base
                _assert_drawn(viewer, expected, files)
                viewer.page.screenshot(path=tmp_path / "ohif.png")
            assert viewer.failed == []
            assert not [text for text in viewer.messages if "Content Security Policy" in text]
