"""What each shipped bundle's envelope says of a real head that is changed, in several strengths and with several seeds each.

The head is one of the references, so that what is normal for it says little of others; what was seen of heads that are no
references is in docs/manifest.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gateway.bundle.files import read_manifest, resolve_bundle
from gateway.domain.errors import InputRefused
from tests.support.series import job_order, write_series
from tests.unit.workers.load.test_envelope import template
from workers.load.envelope import Fingerprint, enforce, judge, read_fingerprint
from workers.load.series import load
from workers.load.volume import Volume
from workers.sample import read_head

Image = NDArray[np.float32]
Affine = NDArray[np.float64]

BUNDLES = {name: resolve_bundle(f"builtin:{name}", Path.cwd()) for name in ("brain_mask", "face_check")}
CONTRAST = {"quartile", "median", "upper", "bright"}
BRIGHT = float(np.percentile(read_head().voxels, 99))


@cache
def reference(name: str) -> Fingerprint:
    """Of a bundle."""
    return read_fingerprint(BUNDLES[name] / "fingerprint.json")


def head() -> tuple[Image, Affine]:
    """Axial slices from feet to head."""
    found = read_head()
    return found.voxels.astype(np.float32), found.affine


def volume(voxels: NDArray[np.generic], affine: Affine) -> Volume:
    """As loading gives it."""
    return Volume(voxels=np.ascontiguousarray(voxels, np.float32), affine=affine, headers=(None,) * len(voxels))


def named(name: str, image: Volume) -> dict[str, str]:
    """Figure -> what a bundle's envelope says of it."""
    envelope = read_manifest(BUNDLES[name]).input.envelope
    assert envelope is not None
    return dict(judge(image, reference(name), envelope.reach).problems)


def noisy(strength: float, seed: int) -> Image:
    """As magnitude images have it (Rice), in parts of the signal."""
    random, (voxels, _) = np.random.default_rng(seed), head()
    real, imaginary = (random.normal(0, strength * BRIGHT, voxels.shape) for _ in range(2))
    return np.hypot(voxels + real, imaginary).astype(np.float32)


def ghosts(strength: float, parts: int) -> Image:
    """Copies along the phase direction, as a pulse or a breath leaves them."""
    voxels, _ = head()
    step = voxels.shape[1] // parts
    return np.abs(voxels + strength * (np.roll(voxels, step, 1) + np.roll(voxels, -step, 1)))


def moved(millimetres: float, share: float, seed: int) -> Image:
    """Lines of k-space that were taken while the head was elsewhere."""
    random, (voxels, affine) = np.random.default_rng(seed), head()
    lines = voxels.shape[1]
    shifts = random.normal(0, millimetres / float(np.linalg.norm(affine[:3, 1])), lines) * (
        random.random(lines) < share
    )
    phases = np.exp(-2j * np.pi * np.fft.fftfreq(lines) * shifts)[:, None]
    return np.abs(np.fft.ifft(np.fft.fft(voxels, axis=1) * phases, axis=1)).astype(np.float32)


def blurred(millimetres: float) -> Image:
    """By a Gaussian of this standard deviation."""
    voxels, affine = head()
    return np.asarray(ndimage.gaussian_filter(voxels, millimetres / np.linalg.norm(affine[:3, :3], axis=0)))


def saturated(percent: float) -> Image:
    """So that the brightest part of the object is cut off."""
    voxels, _ = head()
    return np.minimum(voxels, np.percentile(voxels[voxels > 0.1 * BRIGHT], percent))


def t2_like() -> Image:
    """Fluid bright, white matter dark, fat between."""
    voxels, _ = head()
    return np.where(read_head().reference, np.clip(1.1 * BRIGHT - voxels, 0, None), 0.6 * voxels)


def ct_like() -> Image:
    """Air -1000, fat -80, soft tissue about 40."""
    share = head()[0] / BRIGHT
    return np.where(share < 0.08, -1000, np.where(share > 0.85, -80, 20 + 40 * share))


def cropped(front: float, left: float) -> Image:
    """Parts of the rows and columns are missing."""
    voxels, _ = head()
    return voxels[:, round(front * voxels.shape[1]) :, : round((1 - left) * voxels.shape[2])]


Make = Callable[[], Image]
WRONG: list[tuple[str, Make, set[str]]] = [
    *((f"noise {n} {seed}", lambda n=n, s=seed: noisy(n, s), {"noise"}) for n in (0.12, 0.2, 0.3) for seed in (1, 2)),
    *((f"ghosts {n} {p}", lambda n=n, p=p: ghosts(n, p), {"air"}) for n in (0.2, 0.35) for p in (2, 3)),
    *((f"motion {m} {s}", lambda m=m, s=s: moved(m, 0.6, s), {"air"}) for m in (5, 10) for s in (1, 2)),
    *((f"blur {mm}", lambda mm=mm: blurred(mm), {"sharp"}) for mm in (2.5, 3, 5)),
    *((f"saturation {p}", lambda p=p: saturated(p), {"saturated"}) for p in (85, 90, 93)),
    ("feet to head", lambda: head()[0][::-1], {"turned"}),
    ("front to back", lambda: head()[0][:, ::-1], {"turned"}),
    *((f"cut {f} {s}", lambda f=f, s=s: cropped(f, s), {"cut"}) for f, s in ((0.33, 0), (0.25, 0.25), (0, 0.33))),
    ("CT under MR", ct_like, CONTRAST),
]


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize(("make", "figures"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_is_named(bundle: str, make: Make, figures: set[str]) -> None:
    """By its own figure, in every strength."""
    found = named(bundle, volume(make(), head()[1]))
    assert figures & found.keys(), found


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("make", [t2_like, lambda: head()[0][85:]], ids=["T2-like", "top alone"])
def test_another_image_is_refused(bundle: str, make: Make) -> None:
    """Another contrast under the right modality, and a part of a head."""
    envelope = read_manifest(BUNDLES[bundle]).input.envelope
    assert envelope is not None
    with pytest.raises(InputRefused) as caught:
        enforce(volume(make(), head()[1]), reference(bundle), envelope)
    assert caught.value.code.startswith("envelope_")


def test_another_contrast_is_said_to_be_one() -> None:
    """In words, by the model that is for whole heads of one contrast."""
    said = named("brain_mask", volume(t2_like(), head()[1])).values()
    assert any("another contrast" in each for each in said), said


def _limb() -> Volume:
    """A leg: fat, muscle, bone with marrow."""
    index = np.indices((60, 120, 120), np.float32)
    radius = np.hypot(index[1] - 59.5, index[2] - 59.5) / 42
    tissue = np.select([radius < 0.26, radius < 0.35, radius < 0.85, radius < 1], [900.0, 60.0, 500.0, 900.0], 10.0)
    return volume(
        tissue + np.random.default_rng(0).normal(0, 8, tissue.shape), np.diag([4, 1.5, 1.5, 1])[:, [2, 1, 0, 3]]
    )


def _trunk() -> Volume:
    """An ellipse of 430 by 320 mm."""
    index = np.indices((60, 160, 180), np.float32)
    inside = np.hypot((index[1] - 79.5) / 53, (index[2] - 89.5) / 71) < 1
    return volume(np.where(inside, 500.0, 5.0), np.diag([5.0, 3, 3, 1])[:, [2, 1, 0, 3]])


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("make", [_limb, _trunk])
def test_another_part_of_the_body_is_refused(bundle: str, make: Callable[[], Volume]) -> None:
    """Where the images do not name it; where they do, `body_part` refuses them."""
    assert named(bundle, make()).keys() & {"likeness", "cut", "size"}


def test_a_head_without_its_skull_is_for_one_of_them() -> None:
    """The template of an average brain, and this person's."""
    stripped = volume(read_head().voxels * read_head().reference, head()[1])
    for image in (stripped, template()):
        assert named("brain_mask", image)
        assert not named("face_check", image)


def _as_is(voxels: Image) -> Image:
    return voxels


def _shaded(voxels: Image) -> Image:
    """A coil that is nearer to the back."""
    return voxels * np.linspace(0.85, 1.15, voxels.shape[1], dtype=np.float32)[:, None]


NORMAL: dict[str, Callable[[Image], Image]] = {
    "as is": _as_is,
    "left for right, which nothing can tell": lambda voxels: voxels[:, :, ::-1],
    "another scale": lambda voxels: voxels * 7 + 100,
    "small numbers below zero": lambda voxels: voxels * 0.01 - 3,
    "8 bit": lambda voxels: (voxels / voxels.max() * 255).round(),
    "a large matrix": lambda voxels: np.pad(voxels, ((8, 8), (80, 80), (90, 90))),
    "shaded": _shaded,
    "a little noise": lambda voxels: np.abs(voxels + np.random.default_rng(1).normal(0, 0.02 * BRIGHT, voxels.shape)),
    "tilted": lambda voxels: ndimage.rotate(voxels, 12, axes=(0, 1), reshape=False, order=1),
}


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("name", NORMAL)
def test_what_is_normal_is_taken(bundle: str, name: str) -> None:
    """Without a word."""
    voxels, affine = head()
    assert named(bundle, volume(NORMAL[name](voxels), affine)) == {}


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (2.5, 2.5, 2.5), (1.2, 0.9, 0.9), (1.5, 2.0, 2.0)])
def test_other_voxels_are_taken(bundle: str, spacing: tuple[float, float, float]) -> None:
    """Thick slices, coarse and fine ones."""
    voxels, affine = head()
    own = np.linalg.norm(affine[:3, :3], axis=0)
    other = affine.copy()
    other[:3, :3] = affine[:3, :3] / own * spacing
    assert named(bundle, volume(ndimage.zoom(voxels, own / np.array(spacing), order=1), other)) == {}


@pytest.mark.parametrize("size", [0.92, 1.1])
def test_smaller_and_larger_people_are_taken(size: float) -> None:
    """Of the same shape."""
    voxels, affine = head()
    assert named("brain_mask", volume(voxels, np.diag([size, size, size, 1]) @ affine)) == {}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_from_files_too(bundle: str, tmp_path: Path) -> None:
    """Rescaled by slope and intercept they are taken; as another modality or body part they are refused by name."""
    voxels, affine = head()
    manifest = read_manifest(BUNDLES[bundle])
    files = write_series(tmp_path / "scaled", voxels, affine, slope=0.37, intercept=-12)
    assert named(bundle, load(job_order(files, BUNDLES[bundle], tmp_path / "out"), manifest)) == {}
    refused = {"CT": {"modality": "CT"}, "KNEE": {"attributes": {"BodyPartExamined": "KNEE"}}}
    for name, code in (("CT", "modality"), ("KNEE", "body_part")):
        files = write_series(tmp_path / name, voxels[:30], affine, **refused[name])
        with pytest.raises(InputRefused) as caught:
            load(job_order(files, BUNDLES[bundle], tmp_path / "out"), manifest)
        assert caught.value.code == code
