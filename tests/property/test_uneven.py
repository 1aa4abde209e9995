"""Unevenly spaced stacks: what a model paints comes back to the slices as they came, and is measured by their own shares."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gateway.domain.errors import InputRefused
from tests.support.result_set import Case, manifest, result_set
from workers.encode.measure import measure
from workers.infer.upright import straighten
from workers.load.geometry import Plane, spacing_of, stack
from workers.load.volume import Volume

ROWS, COLUMNS = 20, 24
ANGLE = st.floats(-np.pi, np.pi)
LENGTH = st.floats(0.4, 3.0)
TILT = st.sampled_from([0.0, 0.35, -0.5])
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def affines(draw: st.DrawFn) -> NDArray[np.float64]:
    """Any right-angled grid whose slices ascend along their normal, perhaps sheared by a tilted gantry."""
    turned = Rotation.from_euler("xyz", [draw(ANGLE), draw(ANGLE), draw(ANGLE)]).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = np.stack([turned[:, 2], turned[:, 1], turned[:, 0]], axis=1) * [draw(LENGTH) for _ in range(3)]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300.0, 300.0)] * 3))
    affine[:3, 0] += draw(TILT) * np.linalg.norm(affine[:3, 0]) * turned[:, 1]
    return affine


@st.composite
def steps(draw: st.DrawFn) -> NDArray[np.float64]:
    """Distances between slices: two spacings in one series, or each somewhat off its place."""
    if draw(st.booleans()):
        low, high = draw(st.integers(3, 6)), draw(st.integers(3, 6))
        found = np.array([1.0] * low + [draw(st.floats(1.2, 3.5))] * high)
        return found if draw(st.booleans()) else found[::-1]
    return np.array(draw(st.lists(st.floats(1.0, 1.4), min_size=5, max_size=10)))


def planes_of(affine: NDArray[np.float64], places: NDArray[np.float64]) -> list[Plane]:
    """The planes a scanner would write."""
    _, rows, columns = spacing_of(affine).tolist()
    orientation = tuple(round(float(v), 7) for v in (*(affine[:3, 2] / columns), *(affine[:3, 1] / rows)))
    planes = []
    for place in places:
        x, y, z = (round(float(v), 4) for v in affine[:3, 3] + place * affine[:3, 0])
        planes.append(
            Plane(position=(x, y, z), orientation=orientation, spacing=(rows, columns), shape=(ROWS, COLUMNS))
        )
    return planes


def loaded(affine: NDArray[np.float64], places: NDArray[np.float64], voxels: NDArray[np.float32]) -> Volume:
    """The series as loading would give it, whatever the order of its files."""
    order = np.random.default_rng(len(places)).permutation(len(places))
    planes = planes_of(affine, places)
    found = stack([planes[index] for index in order], gaps="refuse")
    assume(found.places)
    assert [order[index] for index in found.order if index is not None] == list(range(len(places)))
    where = found.affine[:3, 3] + np.outer(found.levels, found.affine[:3, 0])
    truth = affine[:3, 3] + np.outer(places, affine[:3, 0])
    assert np.abs(where - truth).max() < 0.02 + 0.1 * min(spacing_of(affine)[1:])
    return Volume(voxels=voxels, affine=found.affine, headers=(None,) * len(places), places=found.places)


@SETTINGS
@given(affines(), steps(), st.integers(0, 2**32 - 1))
def test_whatever_is_painted_comes_back(affine: NDArray[np.float64], distances: NDArray[np.float64], seed: int) -> None:
    """A model that marks what is bright marks, on each slice as it came, just what is bright there: any mask, any positions."""
    affine[:3, 0] = spacing_of(affine)[0] * np.cross(affine[:3, 2], affine[:3, 1]) / np.prod(spacing_of(affine)[1:])
    places = np.concatenate([[0.0], np.cumsum(distances)])
    mask = np.random.default_rng(seed).random((len(places), ROWS, COLUMNS)) < 0.4
    volume = loaded(affine, places, np.where(mask, 500, -500).astype(np.float32))
    upright = straighten(volume)
    assert upright is not None
    assert not upright.volume.places
    assert np.array_equal(upright.back(upright.volume.voxels > 0), mask)


@SETTINGS
@given(affines(), steps())
def test_the_model_sees_the_patient(affine: NDArray[np.float64], distances: NDArray[np.float64]) -> None:
    """Each even voxel holds what lies at its millimetres: a number that grows evenly through the patient, tilted or not."""
    places = np.concatenate([[0.0], np.cumsum(distances)])
    grid = np.stack(np.meshgrid(places, np.arange(ROWS), np.arange(COLUMNS), indexing="ij"), axis=-1)
    where = grid @ affine[:3, :3].T + affine[:3, 3]
    slope = np.array([0.3, -0.2, 0.5])
    volume = loaded(affine, places, (where @ slope).astype(np.float32))
    upright = straighten(volume)
    assert upright is not None
    seen = upright.volume
    index = np.stack(np.meshgrid(*map(np.arange, seen.voxels.shape), indexing="ij"), axis=-1)
    expected = (index @ seen.affine[:3, :3].T + seen.affine[:3, 3]) @ slope
    level = np.broadcast_to(np.arange(len(seen.voxels))[:, None, None], seen.voxels.shape)
    back = index @ seen.affine[:3, :3].T + seen.affine[:3, 3] - volume.affine[:3, 3]
    rows_columns = (back - level[..., None] * volume.affine[:3, 0]) @ np.linalg.pinv(volume.affine[:3, 1:3]).T
    shear = (
        2 + np.abs(np.linalg.pinv(volume.affine[:3, 1:3]) @ volume.affine[:3, 0]).max() * np.diff(volume.levels).max()
    )
    inside = ((rows_columns > shear) & (rows_columns < [ROWS - 1 - shear, COLUMNS - 1 - shear])).all(axis=-1)
    tolerance = 0.05 + 0.2 * np.abs(slope).max() * max(spacing_of(affine)[1:])
    assert np.abs(seen.voxels - expected)[inside].max(initial=0) < tolerance


@SETTINGS
@given(affines(), steps(), st.integers(0, 2**32 - 1))
def test_each_slice_counts_by_its_share(affine: NDArray[np.float64], distances: NDArray[np.float64], seed: int) -> None:
    """A voxel reaches half of the way to the next slices: the whole stack has the volume of the block it lies in."""
    places = np.concatenate([[0.0], np.cumsum(distances)])
    volume = loaded(affine, places, np.zeros((len(places), ROWS, COLUMNS), np.float32))
    pixel = float(np.linalg.norm(np.cross(affine[:3, 1], affine[:3, 2])))
    between = distances * spacing_of(affine)[0]
    (whole,) = measure(np.ones(volume.voxels.shape, np.uint8), volume, manifest())
    block = ROWS * COLUMNS * pixel * (between.sum() + (between[0] + between[-1]) / 2)
    assert whole.value * 1000 == pytest.approx(block, rel=1e-3)
    which = seed % (len(places) - 2) + 1
    labels = np.zeros(volume.voxels.shape, np.uint8)
    labels[which, 3:7, 5:10] = 1
    (one,) = measure(labels, volume, manifest())
    assert one.value * 1000 == pytest.approx(20 * pixel * (between[which - 1] + between[which]) / 2, rel=2e-2)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(affines(), steps(), st.integers(0, 2**32 - 1), st.sampled_from(["CT", "MR"]))
def test_every_frame_lies_on_its_image(
    affine: NDArray[np.float64], distances: NDArray[np.float64], seed: int, modality: str
) -> None:
    """Frames are at the images' own positions with the pixels painted there, and the gate agrees."""

    def paint(labels: NDArray[np.uint8]) -> None:
        labels[:] = np.random.default_rng(seed).random(labels.shape) < 0.3

    places = tuple(np.concatenate([[0.0], np.cumsum(distances)]).tolist())
    case = Case(
        affine=affine, shape=(len(places), ROWS, COLUMNS), places=places, paint=paint, modality=modality,
        roles=("seg", "sr"),
    )  # fmt: skip
    with TemporaryDirectory() as directory:
        found = result_set(Path(directory), case)
        found.verify()
        dataset: Any = found.read("seg")
        pixels = dataset.pixel_array.reshape(-1, ROWS, COLUMNS)
        assert len(pixels) == len(places)
        assert "SpacingBetweenSlices" not in dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        for index, (item, plane) in enumerate(zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True)):
            place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
            assert np.allclose(place, affine[:3, 3] + places[index] * affine[:3, 0], atol=1e-3)
            assert np.array_equal(plane, found.labels[index])


@pytest.mark.parametrize(
    ("distances", "code"),
    [
        ([1, 1.1, 1.2, 5, 5.3, 5.1], "uneven"),  # more than four times
        ([1, 1, 1, 5, 5, 5], "gap"),
        ([1, 1.3, 1, 1.1, 2.4, 1, 1.2, 1], "gap"),  # alone among others: most likely a slice is missing
        ([1, 1, 1, 2, 2, 1, 1], "gap"),
    ],
)
def test_what_is_too_uneven_is_refused(distances: list[float], code: str) -> None:
    """No more is made up than the images carry, and a hole is a hole."""
    places = np.concatenate([[0.0], np.cumsum(distances)]) * 2.5
    with pytest.raises(InputRefused) as refusal:
        stack(planes_of(np.eye(4)[[2, 1, 0, 3]], places), gaps="refuse")
    assert refusal.value.code == code


def test_holes_are_told_where_they_may_be() -> None:
    """Where gaps are flagged an uneven stack may have holes."""
    places = np.cumsum([0, 1, 1.3, 1, 1.1, 2.4, 1, 1.2, 1])
    assert stack(planes_of(np.eye(4)[[2, 1, 0, 3]], places), gaps="flag").holes == 1
