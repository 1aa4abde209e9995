"""What models of every kind answer about a series: for tests of encoder, gate and judges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.support.result_set import AXIAL, SEGMENTS, SHAPE, code
from workers.infer.answer import Answer
from workers.load.places import Box

NODULE, LUNG = code("27925004", "SCT", "Nodule"), code("39607008", "SCT", "Lung")
PNEUMONIA = code("233604007", "SCT", "Pneumonia")
EFFUSION = code("60046008", "SCT", "Pleural effusion")
LEFT = code("7771000", "SCT", "Left")
SURFACE = code("246116008", "SCT", "Lesion size")
LESIONS = code("{lesions}", "UCUM", "lesions")
MILLILITRE, MILLIMETRE = code("mL", "UCUM", "milliliter"), code("mm", "UCUM", "millimeter")

DETECTION = {
    "kind": "detection",
    "findings": [{"name": NODULE, "site": LUNG, "laterality": LEFT}, {"name": EFFUSION}],
    "boxes": {"mode": "xyzxyz", "score": 0.3, "most": 5},
}
DETECTION_2D = DETECTION | {"scope": "image", "boxes": {"mode": "xyxy", "score": 0.3}}
CLASSIFICATION = {
    "kind": "classification",
    "findings": [{"name": PNEUMONIA, "site": LUNG, "threshold": 0.5}, {"name": EFFUSION}],
}
PER_STUDY, PER_IMAGE = CLASSIFICATION | {"scope": "study"}, CLASSIFICATION | {"scope": "image"}
REGRESSION = {
    "kind": "regression",
    "values": [
        {
            "name": code("C0001779", "UMLS", "Age"),
            "unit": code("a", "UCUM", "year"),
            "plausible": {"min": 0, "max": 110},
        }
    ],
}


def lesions(segments: int = 1, **limits: object) -> dict[str, object]:
    """A segmentation whose last segment's connected parts are measured one by one."""
    number = segments
    hounsfield = code("[hnsf'U]", "UCUM", "Hounsfield unit")
    sizes: list[dict[str, object]] = [
        {"kind": "volume", "name": code("118565006", "SCT", "Volume"), "unit": MILLILITRE},
        {"kind": "longest_diameter", "name": code("103339001", "SCT", "Long Axis"), "unit": MILLIMETRE},
        {"kind": "perpendicular_diameter", "name": code("103340004", "SCT", "Short Axis"), "unit": MILLIMETRE},
        {"kind": "surface", "name": SURFACE, "unit": code("mm2", "UCUM", "square millimeter")},
        {"kind": "mean", "name": code("373098007", "SCT", "Mean"), "unit": hounsfield},
        {
            "kind": "percentile",
            "percentile": 90,
            "name": code("373100007", "SCT", "90th percentile"),
            "unit": hounsfield,
        },
    ]
    whole = {"kind": "count", "segment": number, "name": code("246205007", "SCT", "Quantity"), "unit": LESIONS}
    return {
        "kind": "segmentation",
        "segments": SEGMENTS[:segments],
        "measurements": [whole, *({**size, "segment": number, "per": "lesion"} for size in sizes)],
        "lesions": [{"segment": number, **limits}],
    }


def box(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    *,
    affine: NDArray[np.float64] = AXIAL,
    label: int = 0,
    score: float = 0.9,
    on: int | None = None,
) -> Box:
    """A block between two places of the index (slice, row, column; whole numbers are centres) of the images."""
    start, end = np.array(low, float), np.array(high, float)
    if on is not None:
        start[0], end[0] = on - 0.5, on + 0.5
    return Box(
        corner=affine[:3, :3] @ start + affine[:3, 3],
        edges=affine[:3, :3].T * (end - start)[:, None],
        label=label,
        score=score,
        slice=on,
    )


def nothing(shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """Labels of a model that paints nothing."""
    return np.zeros(shape, np.uint8)


def detected(
    affine: NDArray[np.float64] = AXIAL, shape: tuple[int, int, int] = SHAPE, *, planar: bool = False
) -> Answer:
    """Two nodules; on single images where ``planar``."""
    slices, rows, columns = shape
    on = (slices // 3, slices // 2) if planar else (None, None)
    spare = 0.4 if slices == 1 else 0.0
    first = box(
        ((slices - 1) / 8 - spare, rows * 0.2, columns * 0.3),
        ((slices - 1) / 2 + spare, rows * 0.5, columns * 0.55),
        affine=affine,
        score=0.93,
        on=on[0],
    )
    second = box(
        (slices // 2 - spare, rows * 0.6, columns * 0.6),
        (max(slices - 1.5, 0) + spare, rows * 0.9, columns * 0.95),
        affine=affine,
        score=0.41,
        on=on[1],
    )
    return Answer(labels=nothing(shape), boxes=(first, second))
