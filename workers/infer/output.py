"""What a model gives beside labels, in memory; nothing of it is a file or a DICOM object yet."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.errors import ModelOutputInvalid
from gateway.domain.messages import Code

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, kw_only=True)
class QuantityMap:
    """A number for each voxel of the input: probability, uncertainty, saliency.

    Raises ModelOutputInvalid (`map`) for a value that is not finite, and for a name that is none.
    """

    name: str  # `uncertainty`; tells the maps of one result apart, and its UIDs follow from it
    label: str  # for people
    values: NDArray[np.float32]  # (slices, rows, columns) on the volume's grid
    quantity: Code  # what the numbers are
    unit: Code  # UCUM; `1` for a ratio
    lines: tuple[str, ...] = ()  # of an explanation: what stands beside it wherever it is drawn

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ModelOutputInvalid("a map has no name of a-z, 0-9 and -", code="map")
        if self.values.ndim != 3 or not np.isfinite(self.values).all():
            raise ModelOutputInvalid(f"the map {self.name} holds values that are not finite", code="map")
