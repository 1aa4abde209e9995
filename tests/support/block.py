"""A small series with one bright block: the quickest image that the `threshold` bundle finds something in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.series import axial, write_series

SLICES = 24


def write_block(folder: Path, **options: Any) -> list[Path]:
    """Writes it as MR images (options as for `write_series`) and returns the files in index order."""
    voxels = np.zeros((SLICES, 32, 32), dtype=np.uint16)
    voxels[6:18, 8:24, 8:24] = 1000
    return write_series(folder, voxels, axial(voxels.shape), **options)
