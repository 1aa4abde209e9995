"""Padding: what lies outside of the field of view is air for the model, and neither painted nor counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from gateway.bundle.input import Input
from gateway.domain.errors import GateRefused
from tests.support.bundles import write_bundle
from tests.support.result_set import AXIAL, Case, result_set
from tests.support.series import axial, job_order, write_series
from workers.infer.model import open_model
from workers.infer.predict import infer
from workers.load.quality import figures
from workers.load.series import load_series
from workers.load.volume import Volume

SHAPE = (6, 40, 48)
ROUND = np.hypot(*np.mgrid[-20:20, -24:24]) > 19
ROUND = np.broadcast_to(ROUND, SHAPE)


def volume(
    directory: Path, stored: Any, *, modality: str = "CT", padding: float | None = None, **options: Any
) -> Volume:
    """The series with these stored values, loaded."""
    paths = write_series(directory / "in", stored, axial(SHAPE), modality=modality, **options)
    order = job_order(paths, directory, directory / "out")
    return load_series(order.inputs, Input(modality=(modality,), padding=padding), 4096)


def tissue() -> Any:
    """Signed values of a body; the corners are padding."""
    values = np.random.default_rng(3).integers(-900, 900, SHAPE)
    values[2:5, 15:25, 18:30] = 950
    return values


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless]
)
def test_signed_padding_is_air(tmp_path: Path, syntax: str) -> None:
    """-2000 in every encoding, rescaled or not: the model sees -1000, whatever was measured stays as it is."""
    values = tissue()
    found = volume(
        tmp_path, np.where(ROUND, -2000, values), signed=True, slope=1, intercept=-24, transfer_syntax=syntax,
        change=lambda _, d: d.add_new("PixelPaddingValue", "SS", -2000),
    )  # fmt: skip
    assert np.array_equal(found.outside, ROUND)
    assert (found.voxels[ROUND] == -1000).all()
    assert np.array_equal(found.voxels[~ROUND], (values - 24)[~ROUND])


def test_padding_of_the_wrong_kind_is_understood(tmp_path: Path) -> None:
    """A scanner that writes -2000 of signed pixels as 63536 (US)."""
    found = volume(
        tmp_path, np.where(ROUND, -2000, tissue()), signed=True,
        change=lambda _, d: d.add_new("PixelPaddingValue", "US", 63536),
    )  # fmt: skip
    assert np.array_equal(found.outside, ROUND)


def test_a_range_of_padding(tmp_path: Path) -> None:
    """Everything between value and Range Limit, ends included, in stored values; the manifest says what is put there."""
    stored = np.where(ROUND, np.random.default_rng(4).integers(0, 16, SHAPE), tissue() + 1024)

    def say(_: int, dataset: Any) -> None:
        dataset.add_new("PixelPaddingValue", "US", 15)
        dataset.add_new("PixelPaddingRangeLimit", "US", 0)

    found = volume(tmp_path, stored, slope=1, intercept=-1024, change=say, padding=-1024.0)
    assert np.array_equal(found.outside, ROUND)
    assert (found.voxels[ROUND] == -1024).all()
    assert found.voxels[~ROUND].min() == tissue()[~ROUND].min()


def test_values_inside_of_a_body_are_no_field_of_view(tmp_path: Path) -> None:
    """0 is padding of an MR image, and a vessel: results may lie there. Padding becomes the least value that was measured."""
    stored = np.where(ROUND, 0, tissue() + 1000)
    stored[3, 18:22, 20:24] = 0
    found = volume(tmp_path, stored, modality="MR", change=lambda _, d: d.add_new("PixelPaddingValue", "US", 0))
    assert np.array_equal(found.outside, ROUND)
    assert found.voxels[found.outside].max() == found.voxels[3, 19, 21] == stored[~ROUND & (stored > 0)].min()


def test_images_that_name_no_padding_have_none(tmp_path: Path) -> None:
    """Nothing is guessed from values; and an attribute that no pixel has changes nothing."""
    stored = np.where(ROUND, -2000, tissue())
    found = volume(tmp_path / "a", stored, signed=True)
    assert found.outside is None
    assert found.voxels.min() == -2000
    named = volume(tmp_path / "b", stored, signed=True, change=lambda _, d: d.add_new("PixelPaddingValue", "SS", -3000))
    assert named.outside is None


def test_nothing_is_found_in_padding(tmp_path: Path) -> None:
    """A model that marks all it sees marks the field of view; and a result that lies outside of it does not leave."""
    volume_ = volume(
        tmp_path, np.where(ROUND, 999, tissue()), signed=True, padding=999.0,
        change=lambda _, d: d.add_new("PixelPaddingValue", "SS", 999),
    )  # fmt: skip
    labels = infer(open_model(write_bundle(tmp_path / "bundle")), volume_)
    assert labels[~ROUND].any()
    assert not labels[ROUND].any()


def test_gate_refuses_labels_in_padding(tmp_path: Path) -> None:
    """The rule is the gate's own."""
    found = result_set(tmp_path, Case(affine=AXIAL, roles=("seg", "sr")))
    object.__setattr__(found.volume, "outside", found.labels > 0)
    with pytest.raises(GateRefused) as refusal:
        found.verify()
    assert refusal.value.code == "padding"


def test_figures_are_of_what_was_measured(tmp_path: Path) -> None:
    """The envelope's figures do not depend on what the scanner put into the corners."""
    say = {"change": lambda _, d: d.add_new("PixelPaddingValue", "SS", -2000), "signed": True}
    plain = volume(tmp_path / "a", np.where(ROUND, -2000, tissue()), padding=-1000.0, **say)
    other = volume(tmp_path / "b", np.where(ROUND, -2000, tissue()), padding=-3000.0, **say)
    one, two = figures(plain), figures(other)
    for name in ("size", "air", "empty", "median", "bright"):
        assert one[name] == pytest.approx(two[name], rel=1e-6), name
    assert one["empty"] < 0.1
