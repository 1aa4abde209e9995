"""Compares a SEG with a reference mask, and draws it over its source, for the demonstration.

    python -m workers.score SEG_FILE SOURCE_DIR REFERENCE.npy PICTURE.png

prints Dice coefficient and painted volume as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

_GREEN = np.array([64, 220, 96], dtype=np.float64)
_OPACITY = 0.45


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|), of two masks on one grid (Dice 1945)."""
    return float(2.0 * np.logical_and(one, other).sum() / (one.sum() + other.sum()))


def read_source(folder: Path) -> list[Dataset]:
    """The source slices in the order of Instance Number."""
    found = [pydicom.dcmread(file) for file in folder.iterdir() if file.suffix == ".dcm"]
    return sorted(found, key=lambda dataset: int(dataset.InstanceNumber))


def painted(segmentation: Dataset, source: list[Dataset]) -> NDArray[np.bool_]:
    """The mask a viewer paints: each frame goes to the slice it refers to. Shape (slices, rows, columns)."""
    places = {dataset.SOPInstanceUID: index for index, dataset in enumerate(source)}
    mask = np.zeros((len(source), source[0].Rows, source[0].Columns), dtype=bool)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        reference = groups.DerivationImageSequence[0].SourceImageSequence[0]
        mask[places[reference.ReferencedSOPInstanceUID]] |= frame.astype(bool)
    return mask


def draw(voxels: NDArray[np.float64], mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> Image.Image:
    """Three planes through the middle of the mask, side by side, with the mask over the image."""
    middle = [int(np.median(indices)) for indices in np.nonzero(mask)]
    grey = np.clip(voxels / np.percentile(voxels, 99.5), 0, 1) * 255
    planes = []
    for axis in range(3):
        image, over = (np.take(array, middle[axis], axis=axis) for array in (grey, mask))
        rows, columns = (spacing[other] for other in range(3) if other != axis)
        planes.append(_blend(image, over, rows, columns, upside_down=axis != 0))
    height = max(plane.height for plane in planes)
    sheet = Image.new("RGB", (sum(plane.width for plane in planes), height))
    left = 0
    for plane in planes:
        sheet.paste(plane, (left, (height - plane.height) // 2))
        left += plane.width
    return sheet


def _blend(
    image: NDArray[np.float64], over: NDArray[np.bool_], rows: float, columns: float, *, upside_down: bool
) -> Image.Image:
    colour = np.repeat(image[..., None], 3, axis=2)
    colour[over] = (1 - _OPACITY) * colour[over] + _OPACITY * _GREEN
    if upside_down:  # the first slice is nearest the feet
        colour = colour[::-1]
    size = (round(image.shape[1] * columns * 2), round(image.shape[0] * rows * 2))
    return Image.fromarray(colour.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.score", description="compare a SEG with a reference mask")
    for name in ("segmentation", "source", "reference", "picture"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    source = read_source(options.source)
    mask = painted(pydicom.dcmread(options.segmentation), source)
    rows, columns = (float(value) for value in source[0].PixelSpacing)
    first, second = (np.array(dataset.ImagePositionPatient, dtype=float) for dataset in source[:2])
    between = float(np.linalg.norm(second - first))
    voxels = np.stack([dataset.pixel_array for dataset in source]).astype(np.float64)
    draw(voxels, mask, (between, rows, columns)).save(options.picture)
    print(
        json.dumps(
            {
                "dice": dice(mask, np.load(options.reference)),
                "volume_ml": float(mask.sum() * rows * columns * between / 1000),
                "frames": int(mask.any(axis=(1, 2)).sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
