"""Real heads against the shipped model's fingerprint: what is another image, and what is only another view of one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from gateway.bundle.files import read_manifest, resolve_bundle
from gateway.bundle.input import Envelope
from gateway.domain.errors import BundleInvalid, InputRefused
from tests.support.head import PLANES, Plane, head
from workers.load.envelope import Fingerprint, enforce, judge, limits, read_fingerprint, take_fingerprint
from workers.load.quality import thumbnail
from workers.load.volume import Volume
from workers.sample import RAS_TO_LPS, Head

BUNDLE = resolve_bundle("builtin:brain_mask", Path.cwd())


def volume(image: Head, voxels: NDArray[np.generic] | None = None) -> Volume:
    """A head as loading gives it, with other voxels where there are some."""
    taken = image.voxels if voxels is None else voxels
    return Volume(voxels=taken.astype(np.float32), affine=image.affine, headers=(None,) * len(taken))


def envelope() -> Envelope:
    """The shipped model's."""
    found = read_manifest(BUNDLE).input.envelope
    assert found is not None
    return found


@cache
def reference() -> Fingerprint:
    """The shipped model's."""
    return read_fingerprint(BUNDLE / envelope().fingerprint)


def template() -> Volume:
    """The skull-stripped MNI152 template that nilearn ships; the package itself needs much that is not installed."""
    package = importlib.util.find_spec("nilearn")
    assert package is not None
    assert package.origin is not None
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    image = Nifti1Image.from_filename(Path(package.origin).parent / "datasets/data" / name)
    turn = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    voxels = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    return Volume(
        voxels=np.ascontiguousarray(voxels), affine=RAS_TO_LPS @ image.affine @ turn, headers=(None,) * len(voxels)
    )


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("plane", PLANES)
def test_a_head_is_within_in_every_orientation(plane: Plane, descending: bool) -> None:
    """Slices of any plane and order; nothing is flagged."""
    taken, verdict = enforce(volume(head(plane, descending=descending)), reference(), envelope())
    assert (taken.flags, verdict.score) == ((), 0.0)


def test_units_and_empty_space_change_nothing() -> None:
    """Another scanner's scale, and a larger field of view."""
    image = head()
    wide = np.pad(image.voxels.astype(np.float32) * 0.01 - 3, ((12, 0), (0, 30), (48, 0)), constant_values=-3)
    assert enforce(volume(image, wide), reference(), envelope())[1].problems == ()


def upside_down(image: Head) -> NDArray[np.generic]:
    return image.voxels[::-1]


def back_to_front(image: Head) -> NDArray[np.generic]:
    return image.voxels[:, ::-1]


def cropped(image: Head) -> NDArray[np.generic]:
    return image.voxels[:, 40:, :-45]


def stripped(image: Head) -> NDArray[np.generic]:
    return image.voxels * image.reference


def another_contrast(image: Head) -> NDArray[np.generic]:
    return np.where(image.voxels > 200, image.voxels.max() - image.voxels, 0)


def top_only(image: Head) -> NDArray[np.generic]:
    return image.voxels[85:]


@pytest.mark.parametrize(
    ("change", "figure", "words"),
    [
        (upside_down, "turned", "turned over, feet to head"),
        (back_to_front, "turned", "turned over, front to back"),
        (cropped, "cut", "cut off"),
        (stripped, "size", "the object in the images measures 10"),
        (another_contrast, "median", "intensities is at 9"),
        (top_only, "size", "the object in the images measures 11"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[Head], NDArray[np.generic]], figure: str, words: str) -> None:
    """Each with its figure in the code or among the reasons."""
    image = head()
    with pytest.raises(InputRefused, match=words) as caught:
        enforce(volume(image, change(image)), reference(), envelope())
    assert caught.value.message.startswith("not processed: ")
    assert caught.value.code.startswith("envelope_")
    assert figure in dict(judge(volume(image, change(image)), reference(), envelope().reach).problems)


def test_the_skull_stripped_template_is_refused() -> None:
    """A network for whole heads finds 600 ml of brain in it and says nothing: this does."""
    with pytest.raises(InputRefused, match=r"not processed: .* another contrast or modality"):
        enforce(template(), reference(), envelope())


def test_a_site_may_choose_flags() -> None:
    """The same words, in every result instead."""
    image = head()
    found, verdict = enforce(volume(image, cropped(image)), reference(), replace_outside(envelope()))
    assert any("cut off" in flag for flag in found.flags)
    assert verdict.score > 0


def replace_outside(settings: Envelope) -> Envelope:
    """The same envelope, flagging."""
    return settings.model_copy(update={"outside": "flag"})


def test_some_figures_only_flag_where_the_others_refuse() -> None:
    """Noise is flagged by the shipped model."""
    image = head()
    mild = image.voxels + np.random.default_rng(0).normal(0, 100, image.voxels.shape).clip(-200, 200)
    found, verdict = enforce(volume(image, np.abs(mild)), reference(), envelope())
    assert [name for name, _ in verdict.problems] == ["noise"]
    assert found.flags == (f"Outside what the model was made for: {verdict.problems[0][1]}.",)


def test_a_fingerprint_survives_its_file(tmp_path: Path) -> None:
    """And its own images are within."""
    image = volume(head())
    taken = take_fingerprint([image])
    (tmp_path / "f.json").write_text(taken.to_json())
    read = read_fingerprint(tmp_path / "f.json")
    assert np.abs(read.thumbnail - taken.thumbnail).max() < 1 / 255
    assert judge(image, read, 1.0).problems == ()
    assert limits("noise", read, 2.0)[1] > limits("noise", read, 1.0)[1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "thumbnail": "AA=="}'])
def test_a_fingerprint_that_is_none_is_said_to_be(tmp_path: Path, text: str) -> None:
    """As an invalid bundle."""
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(BundleInvalid, match=r"f\.json cannot be read"):
        read_fingerprint(tmp_path / "f.json")
    with pytest.raises(BundleInvalid):
        read_fingerprint(tmp_path / "none.json")


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 2), (5, 40, 40)])
def test_any_volume_has_figures(shape: tuple[int, int, int]) -> None:
    """One slice, two pixels, all alike but one: numbers, and no exception."""
    voxels = np.zeros(shape, np.float32)
    voxels[0, 0, 0] = 1
    tiny = Volume(voxels=voxels, affine=np.eye(4), headers=(None,) * shape[0])
    assert np.isfinite(list(judge(tiny, reference(), 1.0).figures.values())).all()
    assert np.isfinite(thumbnail(replace(tiny))).all()
