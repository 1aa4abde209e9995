"""Several images at one position: copies are one image, several volumes are told apart or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from gateway.bundle.input import Input
from gateway.domain.errors import InputRefused
from tests.support.bundles import write_bundle
from tests.support.odd_sources import enhanced
from tests.support.series import axial, job_order, write_series
from workers.infer.model import open_model
from workers.load.series import load_series
from workers.load.volume import Volume
from workers.tasks import run

SHAPE = (5, 20, 24)


def volumes(directory: Path, *attributes: dict[str, Any], factor: float = 10) -> list[Path]:
    """A series of as many volumes at the same positions, each brighter than the one before, with attributes of its own."""
    paths = []
    for number, values in enumerate(attributes):
        stored = np.random.default_rng(1).integers(0, 400, SHAPE)
        stored[2:4, 5:12, 6:14] = 900
        paths += write_series(
            directory / str(number),
            stored * factor**number,
            axial(SHAPE),
            seed=str(number),
            attributes={
                "StudyInstanceUID": "1.2.3",
                "SeriesInstanceUID": "1.2.3.4",
                "FrameOfReferenceUID": "1.2.5",
                **values,
            },
        )
    return paths


def loaded(directory: Path, paths: list[Path], which: str = "refuse") -> Volume:
    """The series, for a manifest that wants this volume of it."""
    order = job_order(paths, directory, directory / "out")
    return load_series(order.inputs, Input(modality=("MR",), geometry={"volumes": which}), 4096)  # type: ignore[arg-type]


@pytest.mark.parametrize(("which", "brightest"), [("first", 900), ("last", 9000)])
@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "EchoTime", "AcquisitionNumber"])
def test_the_wanted_volume_is_taken(tmp_path: Path, keyword: str, which: str, brightest: int) -> None:
    """By whatever tells them apart, and it is said; unsaid it is a refusal that names it."""
    paths = volumes(tmp_path, {keyword: 3}, {keyword: 12})
    found = loaded(tmp_path, paths, which)
    assert (len(found.voxels), found.voxels.max()) == (5, brightest)
    assert f"the {which} was used" in found.flags[0]
    with pytest.raises(InputRefused) as refused:
        loaded(tmp_path, paths)
    assert refused.value.code == "duplicate_position"


def test_two_things_may_tell_volumes_apart(tmp_path: Path) -> None:
    """Two times of two echoes each: the first of both."""
    kinds = [{"TemporalPositionIdentifier": time, "EchoTime": echo} for time in (1, 2) for echo in (5, 9)]
    found = loaded(tmp_path, volumes(tmp_path, *kinds, factor=3), "first")
    assert found.voxels.max() == 900
    assert found.flags == (
        "Of several volumes in the series the first was used: Temporal Position Identifier 1 of 2, Echo Time 5 of 2.",
    )


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    """Whatever the manifest says: other pixels at the same place, and nothing that says why."""
    for which in ("first", "last", "refuse"):
        with pytest.raises(InputRefused) as refused:
            loaded(tmp_path, volumes(tmp_path / which, {}, {}), which)
        assert refused.value.code == "duplicate_position"


def test_a_volume_that_is_not_whole_is_no_volume(tmp_path: Path) -> None:
    """The first of them lacks a slice."""
    paths = volumes(tmp_path, {"EchoTime": 1}, {"EchoTime": 2})
    with pytest.raises(InputRefused) as refused:
        loaded(tmp_path, paths[1:], "first")
    assert refused.value.code == "duplicate_position"


def test_copies_are_one_image(tmp_path: Path) -> None:
    """All slices, or one of them, sent again with another UID: the result is about one of each, and says so."""
    paths = volumes(tmp_path, {}, {}, factor=1)
    found = loaded(tmp_path, paths)
    assert len(found.voxels) == 5
    assert found.flags == ("5 images were there again with the same pixels; one of each was used.",)
    assert len(loaded(tmp_path / "one", [*paths[:5], paths[7]]).voxels) == 5
    backwards = loaded(tmp_path / "back", paths[::-1])
    assert [str(h.SOPInstanceUID) for h in backwards.headers if h] == [
        str(h.SOPInstanceUID) for h in found.headers if h
    ]


def test_two_volumes_beside_each_other_are_not_an_uneven_one(tmp_path: Path) -> None:
    """The second lies 1.2 mm beside the first: distances of 1.2 and 1.8 mm that take turns."""
    paths = volumes(tmp_path, {"EchoTime": 1}, {"EchoTime": 2}, factor=1)
    for path in paths[5:]:
        dataset = dcmread(path)
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], float(dataset.ImagePositionPatient[2]) + 1.2]
        dataset.save_as(path)
    with pytest.raises(InputRefused) as refused:
        loaded(tmp_path, paths)
    assert refused.value.code == "uneven"


def test_results_on_one_of_several_times(tmp_path: Path) -> None:
    """A whole job on an enhanced image of two times: the gate finds nothing, and every frame named is of the first time."""
    stored = np.random.default_rng(1).integers(0, 400, SHAPE)
    stored[2:4, 5:12, 6:14] = 900
    (file,) = enhanced(write_series(tmp_path / "in", stored, axial(SHAPE)), positions=2)
    model = open_model(write_bundle(tmp_path / "bundle", geometry={"volumes": "first"}))
    told = run(job_order([file], tmp_path, tmp_path / "out"), model, lambda _: None)
    assert (told.status, told.reason) == ("complete", "")
    groups = dcmread(file).PerFrameFunctionalGroupsSequence
    frames = dcmread(tmp_path / "out/seg.dcm").PerFrameFunctionalGroupsSequence
    assert len(frames) == 2
    for frame in frames:
        number = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert groups[number - 1].FrameContentSequence[0].TemporalPositionIndex == 1


def test_the_same_pixels_turned_otherwise_are_no_copy(tmp_path: Path) -> None:
    """Sent again with an orientation that was put right: nobody knows which of the two is."""
    paths = volumes(tmp_path, {"EchoTime": 3})
    again = dcmread(paths[2])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
    again.ImageOrientationPatient = ["1.00000", "0.000001", "0", "0", "1", "0"]
    again.save_as(tmp_path / "again")
    assert "the same pixels" in loaded(tmp_path, [*paths, tmp_path / "again"]).flags[0]
    again.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
    again.save_as(tmp_path / "again")
    with pytest.raises(InputRefused) as refused:
        loaded(tmp_path, [*paths, tmp_path / "again"])
    assert refused.value.code == "duplicate_position"
