"""OHIF in a real Chromium, looked at through its own state and through what is on the screen."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, sync_playwright

_FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
_PATIENCE = 90_000  # ms

_NO_TOUR = """
localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']));
localStorage.setItem('investigationalUseDialog', JSON.stringify({expiryDate: '2099-01-01T00:00:00.000Z'}));
"""

_LOADED = """() => {
  const found = window.cornerstoneTools?.segmentation.state.getSegmentations() ?? [];
  return found.length && found.every(one => one.representationData.Labelmap?.imageIds?.length);
}"""

# SOP Instance UID of the source image -> segment number -> voxels that are painted on it.
_PAINTED = """() => {
  const painted = {};
  for (const one of cornerstoneTools.segmentation.state.getSegmentations()) {
    for (const id of one.representationData.Labelmap.imageIds) {
      const image = cornerstone.cache.getImage(id);
      const source = cornerstone.metaData.get('instance', image.referencedImageId).SOPInstanceUID;
      for (const value of image.voxelManager.getScalarData()) {
        if (value) {
          painted[source] ??= {};
          painted[source][value] = (painted[source][value] ?? 0) + 1;
        }
      }
    }
  }
  return painted;
}"""

_VIEWPORT = "services.cornerstoneViewportService.getRenderingEngine().getViewports()[0]"

_DRAWN = f"() => {{ const one = {_VIEWPORT}; return one?.viewportStatus === 'rendered'; }}"

_SHOW = f"""async uid => {{
  const viewport = {_VIEWPORT};
  const ids = viewport.getImageIds();
  const at = ids.findIndex(id => cornerstone.metaData.get('instance', id).SOPInstanceUID === uid);
  const drawn = new Promise(done => viewport.element.addEventListener('CORNERSTONE_IMAGE_RENDERED', done, {{once: true}}));
  await viewport.setImageIdIndex(at);
  viewport.render();
  await drawn;
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return at;
}}"""


_SCALE = f"() => {{ const one = {_VIEWPORT}; return one.canvas.clientHeight / (2 * one.getCamera().parallelScale); }}"


_NEXT_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass
class Ohif:
    """One page of the viewer."""

    page: Page
    failed: list[str] = field(default_factory=list)  # answers of 400 and more, and requests to elsewhere
    messages: list[str] = field(default_factory=list)

    def open(self, link: str) -> None:
        """Opens a link and waits until its segmentation is loaded."""
        self.page.goto(link)
        self.page.wait_for_function(_LOADED, timeout=_PATIENCE)
        self.page.wait_for_function(_DRAWN, timeout=_PATIENCE)

    def painted(self) -> dict[str, dict[int, int]]:
        """Voxels of each segment on each source image, by the viewer's own state."""
        found: dict[str, dict[str, int]] = self.page.evaluate(_PAINTED)
        return {uid: {int(number): count for number, count in of.items()} for uid, of in found.items()}

    def show(self, uid: str) -> int:
        """Turns to an image; returns its place in the stack."""
        return int(self.page.evaluate(_SHOW, uid))

    def viewport(self) -> tuple[NDArray[np.uint8], float]:
        """What the viewport shows, (rows, columns, RGB), and how many pixels a millimetre has on it.

        Panels of OHIF come and go by themselves and change the size of the viewport: a picture counts only when it comes
        twice.
        """
        before = None
        while True:
            self.page.evaluate(_NEXT_FRAMES)
            scale = float(self.page.evaluate(_SCALE))
            shot = self.page.locator(".viewport-element").first.screenshot()
            if before == (scale, shot):
                return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")), scale
            before = (scale, shot)


def reddish(picture: NDArray[np.uint8]) -> int:
    """How many pixels are red rather than grey or blue: images are grey, OHIF's own signs are blue."""
    values = picture.astype(int)
    return int((values[..., 0] - values[..., 2] > 25).sum())


@contextmanager
def ohif(profile: Path) -> Iterator[Ohif]:
    """A browser for the time of a test."""
    program = shutil.which("chromium")
    assert program, "Chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=program, args=_FLAGS, headless=True, viewport={"width": 1400, "height": 900}
        )
        context.add_init_script(_NO_TOUR)
        page = context.pages[0] if context.pages else context.new_page()
        viewer = Ohif(page)

        def judge(answer: Any) -> None:
            if answer.status >= 400:
                viewer.failed.append(f"{answer.status} {answer.url}")

        page.on("response", judge)
        page.on("requestfailed", lambda request: viewer.failed.append(f"failed {request.url} {request.failure}"))
        page.on("console", lambda message: viewer.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: viewer.messages.append(f"error: {error}"))
        try:
            yield viewer
        finally:
            context.close()
