"""Whatever the orientation, spacing, slice order and mask: the objects are right, and the gate agrees."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.result_set import Case, frame, result_set

SPACING = st.floats(0.3, 8.0, allow_nan=False)
TURN = st.floats(-np.pi, np.pi, allow_nan=False)


def turned(angles):
    """Three perpendicular directions: columns, rows, slices."""
    a, b, c = angles
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    return (about_z @ about_y @ about_x).T


@st.composite
def cases(draw):
    """A series in any orientation with any mask of one or two segments, perhaps with slices missing."""
    shape = draw(st.tuples(st.integers(2, 6), st.integers(1, 12), st.integers(8, 17)))
    across, down, through = turned(draw(st.tuples(TURN, TURN, TURN)))
    if draw(st.booleans()):
        through = -through
    origin = draw(st.tuples(*[st.floats(-900, 900, allow_nan=False)] * 3))
    affine = frame(across, down, through, spacing=draw(st.tuples(SPACING, SPACING, SPACING)), origin=origin)
    if draw(st.booleans()):  # a tilted gantry
        affine[:3, 0] += draw(st.floats(-0.5, 0.5)) * affine[:3, 1] + draw(st.floats(-0.5, 0.5)) * affine[:3, 2]
    segments, seed = draw(st.integers(1, 2)), draw(st.integers(0, 2**32 - 1))
    density = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))

    def paint(labels):
        random = np.random.default_rng(seed)
        labels[:] = random.integers(1, segments + 1, labels.shape) * (random.random(labels.shape) < density)

    missing = draw(st.sets(st.integers(1, shape[0] - 1), max_size=shape[0] - 2)) if shape[0] > 2 else set()
    modality = draw(st.sampled_from(["CT", "MR"]))
    return Case(
        affine=affine,
        shape=shape,
        segments=segments,
        paint=paint,
        missing=missing,
        modality=modality,
        roles=("seg", "sr"),
    )


@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(cases())
def test_every_voxel_lands_where_it_was_painted(case):
    """Frames put each painted voxel at its millimetre, through position, orientation and spacing as written in the file."""
    with TemporaryDirectory() as directory:
        found = result_set(Path(directory), case)
        found.verify()
        dataset = found.read("seg")
        to_index = np.linalg.inv(case.affine)
        rebuilt = np.zeros_like(found.labels)
        pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        for item, plane in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
            indices = (to_index @ _places(dataset, item, plane).T)[:3].T
            assert np.allclose(indices, indices.round(), atol=0.02)
            segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            rebuilt[tuple(indices.round().astype(int).T)] = segment
        expected = found.labels.copy()
        expected[list(case.missing)] = 0
        assert np.array_equal(rebuilt, expected)


def _places(dataset, item, plane):
    """Homogeneous patient coordinates of a frame's painted pixels (PS3.3 C.7.6.2.1.1)."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    origin = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
    rows, columns = np.nonzero(plane)
    places = (
        origin + np.outer(columns * between_columns, orientation[:3]) + np.outer(rows * between_rows, orientation[3:])
    )
    return np.column_stack([places, np.ones(len(places))])
