"""Several label maps of one volume into one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.load.masks import Labels


def majority(labels: Sequence[Labels], weights: Sequence[float] | None = None) -> Labels:
    """For each voxel the label with most votes, each counted by its weight; of equals the lower number.

    Overlapping labels (segments, slices, rows, columns) are voted on segment by segment.
    """
    shares = np.asarray(weights if weights is not None else [1.0] * len(labels), np.float64)
    most = max(int(one.max(initial=0)) for one in labels)
    best = np.zeros(labels[0].shape, np.uint8)
    height = np.zeros(labels[0].shape, np.float64)
    for label in range(most + 1):
        votes: NDArray[np.float64] = sum((one == label) * share for one, share in zip(labels, shares, strict=True))
        won = votes > height + 1e-9
        best[won], height[won] = label, votes[won]
    return best


def staple(labels: Sequence[Labels]) -> Labels:
    """The truth that explains all of them best, with how far each can be trusted (Warfield et al. 2004; Rohlfing et al. 2003).

    Where two labels are equally likely the majority decides. SimpleITK does the sums.
    """
    sitk: Any = import_module("SimpleITK")
    if labels[0].ndim == 4:  # segment by segment: each is a question of its own
        return np.stack([staple([one[number] for one in labels]) for number in range(len(labels[0]))])
    undecided = max(int(one.max(initial=0)) for one in labels) + 1
    images = [sitk.GetImageFromArray(np.ascontiguousarray(one, np.uint8)) for one in labels]
    estimate = sitk.MultiLabelSTAPLEImageFilter()
    estimate.SetLabelForUndecidedPixels(undecided)
    found: Labels = np.asarray(sitk.GetArrayFromImage(estimate.Execute(images)), np.uint8)
    return np.where(found == undecided, majority(labels), found)
