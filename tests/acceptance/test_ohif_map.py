"""The map of a model's doubt in OHIF, in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.bundle.files import resolve_bundle
from gateway.web.links import study_link
from tests.support.head import write_head
from tests.support.neighbours import Neighbours
from tests.support.ohif import Ohif, ohif, reddish
from tests.support.site import Site

_LOADED = "() => window.services?.displaySetService.getActiveDisplaySets().some(one => one.Modality === 'PMAP' && one.isLoaded)"

# SOP Instance UID of each image -> the sum of the map's numbers on it, by the viewer's own state.
_SUMS = """() => {
  const map = services.displaySetService.getActiveDisplaySets().find(one => one.Modality === 'PMAP');
  const images = cornerstone.cache.getVolume(map.getReferencedVolumeId()).imageIds;
  const values = cornerstone.cache.getVolume(map.displaySetInstanceUID).voxelManager.getCompleteScalarDataArray();
  const size = values.length / images.length;
  const sum = at => values.slice(at * size, (at + 1) * size).reduce((total, value) => total + value, 0);
  return Object.fromEntries(images.map((id, at) => [cornerstone.metaData.get('instance', id).SOPInstanceUID, sum(at)]));
}"""

# SOP Instance UID of the image on the screen.
_SHOWN = """() => {
  const [viewport] = services.cornerstoneViewportService.getRenderingEngine().getViewports();
  return cornerstone.metaData.get('instance', viewport.getCurrentImageId()).SOPInstanceUID;
}"""

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def _frames(found: Dataset) -> list[tuple[str, NDArray[np.float32]]]:
    """SOP Instance UID of each image and the map's numbers on it, by the map's own frames."""
    values = np.frombuffer(found.FloatPixelData, "<f4").reshape(-1, found.Rows, found.Columns)
    uids = [
        str(item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        for item in found.PerFrameFunctionalGroupsSequence
    ]
    return list(zip(uids, values, strict=True))


def test_doubt_is_on_the_images_it_is_about(tmp_path: Path, neighbours: Neighbours) -> None:
    """By its link, on every image the numbers that the file has there, and in colours on the screen."""
    bundle = resolve_bundle("builtin:brain_mask", Path.cwd())
    bundle = shutil.copytree(bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("__pycache__"))
    with (bundle / "hilum.yaml").open("a") as manifest:
        manifest.write("uncertainty: {method: mc_dropout, samples: 3}\n")
    files = write_head(tmp_path / "head")
    with Site(tmp_path / "site", neighbours.configuration(str(bundle))) as site:
        site.send(files)
        [job] = site.wait_for_jobs(1)
        assert job["state"] == "delivered", job
        [pm] = [item for item in job["outcome"]["objects"] if item["role"] == "pm"]
        path = site.directory / "data" / "spool" / "objects" / pm["file"]
        expected = {uid: float(values.sum()) for uid, values in _frames(pydicom.dcmread(path))}
        assert len(expected) == len(files)
        here = f"http://127.0.0.1:{site.status['http_port']}"
        with ohif(tmp_path / "profile") as viewer:
            viewer.page.goto(study_link(here, job["study_uid"], pm["series_uid"]))
            viewer.page.wait_for_function(_LOADED, timeout=90_000)
            # OHIF shows a hundred times the number.
            seen = viewer.page.evaluate(_SUMS)
            assert seen == pytest.approx({uid: 100 * one for uid, one in expected.items()}, rel=1e-3, abs=0.01)
            _assert_drawn(viewer, path)
            viewer.page.screenshot(path=tmp_path / "map.png")
            assert viewer.failed == []


def _assert_drawn(viewer: Ohif, path: Path) -> None:
    """In colour is about as much of the image on the screen as the map has large numbers there."""
    found = pydicom.dcmread(path)
    shown = viewer.page.evaluate(_SHOWN)
    (plane,) = [values for uid, values in _frames(found) if uid == shown]
    rows, columns = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    picture, scale = viewer.viewport()
    area = float((plane > 0.8).sum() * rows * columns * scale**2)
    assert area > 1000
    assert reddish(picture) == pytest.approx(area, rel=0.4)
