"""What the images hold where nothing was measured: outside of a round field of view, or beside a turned volume.

Such pixels have a value that no tissue has (often -2000 in CT) and that images name (Pixel Padding Value, PS3.3 C.7.5.1.1.2). A
network was trained on air there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

AIR = -1000.0  # HU


def fill_of(wanted: float | None, modality: str) -> float | None:
    """What is put in the place of padding: what the manifest says, air of CT; None for the least value that was measured."""
    return AIR if wanted is None and modality == "CT" else wanted


def replace_padding(
    voxels: NDArray[np.float32], padding: NDArray[np.bool_] | None, fill: float | None
) -> NDArray[np.bool_] | None:
    """Puts ``fill`` where padding is, and returns the part of it that lies outside of the field of view; None where none does.

    That is what hangs together with a border of its slice. Elsewhere a scanner's padding value may as well have been measured
    (0 in a vessel of an MR image whose padding is 0), so results may lie there.
    """
    if padding is None or not padding.any():
        return None
    if not padding.all():
        voxels[padding] = voxels.min(where=~padding, initial=np.inf) if fill is None else fill
    for index, plane in enumerate(padding):
        if plane.any():
            padding[index] = _with_border(plane)
    return padding if padding.any() else None


def _with_border(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    numbered, _ = ndimage.label(plane)
    border = np.concatenate([numbered[0], numbered[-1], numbered[:, 0], numbered[:, -1]])
    found: NDArray[np.bool_] = np.isin(numbered, border[border > 0])
    return found
