"""Several answers about one volume into one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from workers.load.masks import Labels

_T = TypeVar("_T", bound=Any)


class RunningMean(Generic[_T]):
    """A weighted mean of arrays or tensors that come one after another, so that memory is that of one."""

    def __init__(self) -> None:
        self._total: _T | None = None
        self._weight = 0.0

    def add(self, value: _T, weight: float = 1.0) -> None:
        """One more; ``weight`` above 0."""
        weighted = value if weight == 1.0 else value * weight
        self._total = weighted if self._total is None else self._total + weighted
        self._weight += weight

    @property
    def value(self) -> _T:
        """The mean so far; raises ValueError where nothing was added."""
        if self._total is None:
            raise ValueError("there is no mean of nothing")
        mean: _T = self._total / self._weight
        return mean


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
