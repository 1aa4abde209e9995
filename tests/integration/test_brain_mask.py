"""The shipped model on a real head, in every orientation a scanner could have chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from gateway.bundle.files import resolve_bundle
from gateway.domain.errors import InputRefused
from tests.support.head import PLANES, Plane, head
from tests.support.series import job_order, write_series
from workers.infer.model import Model, open_model
from workers.infer.predict import infer
from workers.load.series import load
from workers.load.volume import Volume
from workers.sample import RAS_TO_LPS, Head, read_head

BUNDLE = resolve_bundle("builtin:brain_mask", Path.cwd())
FREE = (12, 30, 48)
"""Empty voxels put before the first axis, after the second and before the third: the head is off the middle everywhere."""


@cache
def model() -> Model:
    """Opened once."""
    return open_model(BUNDLE)


def off_the_middle(image: Head) -> Head:
    """The head with empty space on one side of each axis, so that a mask that is turned over lands beside it."""
    sides = ((FREE[0], 0), (0, FREE[1]), (FREE[2], 0))
    affine = image.affine.copy()
    affine[:3, 3] = (image.affine @ [-FREE[0], 0, -FREE[2], 1])[:3]
    return Head(voxels=np.pad(image.voxels, sides), reference=np.pad(image.reference, sides), affine=affine)


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Overlap of two masks."""
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def places(volume: Volume) -> NDArray[np.intp]:
    """For each voxel of the package's own grid the index of the volume's voxel at the same place in the patient."""
    reference = read_head()
    grid = np.indices(reference.reference.shape).reshape(3, -1)
    patient = reference.affine @ np.vstack([grid, np.ones(grid.shape[1])])
    return np.rint((np.linalg.inv(volume.affine) @ patient)[:3]).astype(np.intp)


def carried(labels: NDArray[np.uint8], index: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Label 1 on the package's own grid; what lies outside the volume is none."""
    inside = ((index >= 0) & (index < np.array(labels.shape)[:, None])).all(axis=0)
    found = np.zeros(index.shape[1], dtype=bool)
    found[inside] = labels[tuple(index[:, inside])] == 1
    return found.reshape(read_head().reference.shape)


@cache
def axial_volume() -> float:
    """The brain's volume in the axial series, in ml."""
    image = head("axial")
    volume = Volume(voxels=image.voxels.astype(np.float32), affine=image.affine, headers=(None,) * len(image.voxels))
    return millilitres(infer(model(), volume), volume)


def millilitres(labels: NDArray[np.uint8], volume: Volume) -> float:
    """Volume of label 1."""
    return float((labels == 1).sum() * abs(np.linalg.det(volume.affine[:3, :3])) / 1000)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("plane", PLANES)
def test_the_brain_is_found_where_it_is(tmp_path: Path, plane: Plane, descending: bool) -> None:
    """From DICOM files to labels: Dice 0.93 in the patient's coordinates, on the right side, the same volume within 2 %."""
    image = off_the_middle(head(plane, descending=descending))
    paths = write_series(tmp_path / "in", image.voxels, image.affine)
    volume = load(job_order(paths, BUNDLE, tmp_path / "out"), model().manifest)
    labels = infer(model(), volume)
    index, reference = places(volume), read_head().reference
    assert dice(carried(labels, index), reference) >= 0.93
    for axis in range(3):
        assert dice(carried(np.flip(labels, axis), index), reference) < 0.85
    assert millilitres(labels, volume) == pytest.approx(axial_volume(), rel=0.02)


def test_missing_files_are_refused_with_a_sentence(tmp_path: Path) -> None:
    """Five files missing: the manifest says to refuse gaps."""
    image = head("axial")
    paths = write_series(tmp_path / "in", image.voxels, image.affine, missing=[20, 60, 61, 90, 130])
    with pytest.raises(InputRefused, match=r"^5 of 155 slices are missing, the first after slice 20"):
        load(job_order(paths, BUNDLE, tmp_path / "out"), model().manifest)


def test_a_head_without_its_skull_is_outside_the_plausible_range() -> None:
    """The model was made for whole heads; what it finds in a stripped one is no volume that could leave the gate."""
    image = head("axial")
    stripped = (image.voxels * image.reference).astype(np.float32)
    volume = Volume(voxels=stripped, affine=image.affine, headers=(None,) * len(stripped))
    plausible = model().manifest.output.measurements[0].plausible
    assert plausible is not None
    assert plausible.holds(axial_volume())
    assert not plausible.holds(millilitres(infer(model(), volume), volume))


def test_an_outsider_can_run_the_bundle_with_monai_alone(tmp_path: Path) -> None:
    """MONAI's `bundle run` on a NIfTI file gives the same labels."""
    image = head("axial")
    (tmp_path / "in").mkdir()
    stored = Nifti1Image(image.voxels.astype(np.float32), RAS_TO_LPS @ image.affine)
    stored.to_filename(tmp_path / "in/head.nii.gz")
    options = {
        "config_file": str(BUNDLE / "configs/inference.json"),
        "meta_file": str(BUNDLE / "configs/metadata.json"),
        "bundle_root": str(BUNDLE),
        "dataset_dir": str(tmp_path / "in"),
        "output_dir": str(tmp_path / "out"),
    }
    # What `python -m monai.bundle run --config_file ...` does, without the package `fire` that reads its options.
    program = f"from monai.bundle import run; run(**{options!r})"
    environment = os.environ | {"PYTHONPATH": str(Path(sys.prefix) / "bundle-run")}  # ignite, see the Makefile
    subprocess.run([sys.executable, "-P", "-c", program], check=True, cwd=tmp_path, timeout=240, env=environment)
    (written,) = (tmp_path / "out").rglob("*.nii.gz")
    mask = np.asarray(Nifti1Image.from_filename(written).dataobj) > 0
    assert mask.sum() * 3.375 / 1000 == pytest.approx(axial_volume(), rel=1e-3)
    assert dice(mask.reshape(image.reference.shape), image.reference) >= 0.95
