"""A fusion's whole job, with small bundles whose answers are known: what is combined, what is left out, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.domain.errors import BundleInvalid
from gateway.domain.messages import JobOrder, Outcome, PartBundle
from tests.support.bundles import write_bundle
from tests.support.classifier import write_classifier
from tests.support.fusions import write_fusion
from tests.support.series import axial, input_file, write_series
from workers.fuse.model import open_fusion
from workers.tasks import run

SHAPE = (8, 24, 24)
AFFINE = axial(SHAPE)
VOXELS = np.zeros(SHAPE)
VOXELS[2:5, 6:14, 4:10] = 900
VOXELS += np.arange(24)
PAINTED = 144  # voxels above half of the maximum
VOXEL = 0.003  # ml

BRIGHT: dict[str, Any] = {
    "kind": "classification",
    "findings": [{"name": {"value": "bright", "scheme": "99TEST", "meaning": "Bright"}, "threshold": 0.5}],
}
Parts = dict[str, tuple[Path, dict[str, Any]]]


def job(tmp_path: Path, parts: Parts, *args: Any, series: dict[str, str] | None = None, **keys: Any) -> Outcome:
    """Runs a fusion of these parts; ``series`` names a folder of images for each, `images` where nothing is said."""
    bundle = write_fusion(tmp_path / "fusion", parts, *args, **keys)
    if not (tmp_path / "images").is_dir():
        write_series(tmp_path / "images", VOXELS, AFFINE)
    given = {"image": "images"} | {f"{name}/image": "images" for name in parts} | (series or {})
    inputs = tuple(
        replace(input_file(path), input=name)
        for name, folder in given.items()
        if folder
        for path in sorted((tmp_path / folder).iterdir())
    )
    output = tmp_path / "output"
    output.mkdir()
    order = JobOrder(
        job_id="0" * 32,
        bundle=str(bundle),
        inputs=inputs,
        output_dir=str(output),
        content_time=1_767_348_900.0,
        parts=tuple(PartBundle(name=name, bundle=str(path)) for name, (path, _) in parts.items()),
    )
    return run(order, open_fusion(bundle), lambda stage: None)


def bright(tmp_path: Path, name: str = "bright", **keys: Any) -> Path:
    """Labels what is above half of the maximum."""
    return write_bundle(tmp_path / name, name=name, **keys)


def nothing(tmp_path: Path) -> Path:
    """Finds nothing."""
    return write_bundle(tmp_path / "nothing", "empty", name="nothing")


@pytest.mark.parametrize(("weight", "voxels"), [(0.7, PAINTED), (0.3, 0)])
def test_the_heavier_voice(tmp_path: Path, weight: float, voxels: int) -> None:
    """By vote: what the one with more weight says, with both answers beside it."""
    parts: Parts = {
        "a": (bright(tmp_path), {"weight": weight}),
        "b": (nothing(tmp_path), {"weight": round(1 - weight, 1)}),
    }
    outcome = job(tmp_path, parts, combine="vote")
    assert outcome.status == "complete", outcome.reason
    assert outcome.segments[0].voxels == voxels
    a, b = outcome.parts
    assert (a.weight, b.weight) == (weight, round(1 - weight, 1))
    assert [one.segments[0].voxels for one in (a, b)] == [PAINTED, 0]
    assert a.measurements[0].value == pytest.approx(PAINTED * VOXEL)
    assert (a.dice, b.dice) == (({"Brain": 1.0}, {"Brain": 0.0}) if voxels else ({"Brain": 0.0}, {"Brain": 1.0}))
    assert outcome.quality["parts_agreement"] == 0.0
    assert outcome.source_instances == SHAPE[0], "though three were given them"


@pytest.mark.parametrize(("weight", "voxels"), [(0.6, PAINTED), (0.5025, PAINTED * 5 // 6), (0.4, 0)])
def test_a_mean_of_probabilities(tmp_path: Path, weight: float, voxels: int) -> None:
    """One small bundle gives the images scaled to 1, the other 0: the mean is above one half where its share is."""
    parts: Parts = {
        "a": (bright(tmp_path), {"weight": weight}),
        "b": (nothing(tmp_path), {"weight": round(1 - weight, 4)}),
    }
    outcome = job(tmp_path, parts, combine="mean")
    assert outcome.status == "complete", outcome.reason
    assert outcome.segments[0].voxels == int((weight * VOXELS / VOXELS.max() > 0.5).sum()) == voxels


def test_a_part_that_refuses_its_images(tmp_path: Path) -> None:
    """Left out with the reason in the result where it may be; else its refusal is that of the job, with its name."""
    picky = bright(tmp_path, "picky", geometry={"slices": {"min": 20}})
    parts: Parts = {"a": (bright(tmp_path), {"weight": 0.5}), "b": (picky, {"weight": 0.5, "missing": "leave_out"})}
    outcome = job(tmp_path, parts, combine="vote")
    assert outcome.segments[0].voxels == PAINTED
    assert (outcome.parts[0].weight, outcome.parts[1].weight) == (1.0, 0.0)
    assert "the model takes 20 to 5000" in outcome.parts[1].missing
    assert any(flag.startswith("Without the part b (picky): ") for flag in outcome.flags)
    assert "parts_agreement" not in outcome.quality


@pytest.mark.parametrize(
    ("b", "keys", "code", "reason"),
    [
        ("picky", {}, "slices", "b: "),
        ("nan", {}, "output_not_finite", "not finite"),
        ("nothing", {"agreement": 0.8, "below": "refuse"}, "parts_disagree", "agree by 0.000"),
    ],
)
def test_what_is_refused(tmp_path: Path, b: str, keys: dict[str, Any], code: str, reason: str) -> None:
    """With the part that it is about."""
    made = {
        "picky": lambda: bright(tmp_path, "picky", geometry={"slices": {"min": 20}}),
        "nan": lambda: write_bundle(tmp_path / "nan", "nan", name="nan"),
        "nothing": lambda: nothing(tmp_path),
    }
    outcome = job(tmp_path, {"a": (bright(tmp_path), {}), "b": (made[b](), {})}, combine="vote", **keys)
    assert (outcome.status, outcome.reason_code) == ("refused", code)
    assert reason in outcome.reason


def test_no_part_is_left(tmp_path: Path) -> None:
    """A result of nothing is none."""
    optional = {"missing": "leave_out"}
    parts: Parts = {"a": (bright(tmp_path), optional), "b": (nothing(tmp_path), optional)}
    outcome = job(tmp_path, parts, combine="vote", series={"a/image": "", "b/image": ""})
    assert (outcome.status, outcome.reason_code) == ("refused", "no_parts")
    assert "a: there is no series for it" in outcome.reason


def test_labels_of_another_series(tmp_path: Path) -> None:
    """A part on a series that lies elsewhere and is twice as fine: its labels come back to where they are."""
    fine = AFFINE.copy()
    fine[:3, :3] /= 2
    fine[:3, 3] -= 0.25 * AFFINE[:3, :3].sum(axis=1)
    common = {"StudyInstanceUID": "2.25.77", "FrameOfReferenceUID": "2.25.77.1"}
    write_series(tmp_path / "images", VOXELS, AFFINE, attributes=common)
    write_series(tmp_path / "fine", VOXELS.repeat(2, 0).repeat(2, 1).repeat(2, 2), fine, attributes=common, seed="fine")
    parts: Parts = {"a": (bright(tmp_path), {}), "b": (bright(tmp_path, "other"), {})}
    outcome = job(tmp_path, parts, combine="staple", series={"b/image": "fine"}, registration={"agreement": 0.0})
    assert outcome.status == "complete", outcome.reason
    assert outcome.parts[1].segments[0].voxels == 8 * PAINTED, "its own answer is on its own images"
    assert outcome.parts[1].dice == {"Brain": 1.0}
    assert outcome.source_instances == 3 * SHAPE[0]
    assert "common frame of reference" in " ".join(outcome.provenance.values())


def test_numbers(tmp_path: Path) -> None:
    """A weighted mean of probabilities, with how far each part is from it; findings are matched by code."""
    one = write_classifier(tmp_path / "one", exclusive=False, name="one")
    two = write_classifier(tmp_path / "two", exclusive=False, name="two", calibrated=2.0)
    parts: Parts = {"a": (one, {"weight": 0.75}), "b": (two, {"weight": 0.25})}
    outcome = job(tmp_path, parts, BRIGHT, combine="mean")
    assert outcome.status == "complete", outcome.reason
    a, b = (part.measurements[0].value for part in outcome.parts)
    (said,) = outcome.measurements
    assert a != pytest.approx(b)
    assert said.value == pytest.approx(0.75 * a + 0.25 * b)
    assert outcome.parts[1].difference["Bright"] == pytest.approx((b - said.value) / 100)
    assert outcome.quality["parts_agreement"] == pytest.approx(1 - abs(a - b) / 100, abs=1e-6)
    assert any("by weighted mean of probabilities" in flag for flag in outcome.flags)


def test_a_part_that_was_changed(tmp_path: Path) -> None:
    """Nothing of it is run."""
    path = bright(tmp_path)
    parts: Parts = {"a": (path, {}), "b": (nothing(tmp_path), {})}
    job(tmp_path, parts, combine="vote")
    (path / "scripts/network.py").write_text("raise SystemExit")
    (tmp_path / "output").rename(tmp_path / "before")
    order_of = open_fusion(tmp_path / "fusion")
    inputs = tuple(replace(input_file(file), input="image") for file in sorted((tmp_path / "images").iterdir()))
    order = JobOrder(
        job_id="0" * 32,
        bundle=str(tmp_path / "fusion"),
        inputs=inputs,
        output_dir=str(tmp_path),
        content_time=0.0,
        parts=tuple(PartBundle(name=name, bundle=str(one)) for name, (one, _) in parts.items()),
    )
    with pytest.raises(BundleInvalid, match="its part a is another build of bright"):
        run(order, order_of, lambda stage: None)
