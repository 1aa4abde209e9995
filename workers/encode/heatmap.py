"""An explanation over its slices, as people see it: hot where it speaks for the answer, the image as it is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.encode.picture import Picture, draw
from workers.encode.source import Source
from workers.infer.output import QuantityMap

NOT_A_FINDING = "explanation, not a finding"
_COLOURS = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64
)  # dark to bright
_OPACITY = 0.75  # where the explanation is strongest


def explanations(source: Source) -> tuple[QuantityMap, ...]:
    """The maps that say why, and not what."""
    return tuple(found for found in source.maps if found.lines)


def hot_slices(source: Source, found: QuantityMap, most: int) -> tuple[int, ...]:
    """The real slices with most of it, none next to another, in the order of the stack."""
    real = np.array(source.real_slices)
    heat = found.values[real].sum(axis=(1, 2), dtype=np.float64)
    apart = max(1, len(real) // (4 * most))
    chosen: list[int] = []
    for place in np.argsort(-heat, kind="stable"):
        if heat[place] > 0 and all(abs(int(place) - other) >= apart for other in chosen):
            chosen.append(int(place))
        if len(chosen) == most:
            break
    return tuple(int(real[place]) for place in sorted(chosen))


def heat_pictures(source: Source, found: QuantityMap, size: int, most: int) -> Iterator[Picture]:
    """The slices with their longer side ``size`` pixels long; one scale for all of them, from 0 to 1."""
    for index in hot_slices(source, found, most):
        picture = draw(source, index, size)
        heat = Image.fromarray(np.clip(found.values[index], 0, 1), mode="F")
        across = heat.resize((picture.columns, picture.rows), Image.Resampling.BILINEAR)
        yield replace(picture, pixels=_over(picture.pixels, np.asarray(across, np.float64)))


def bar(found: QuantityMap) -> dict[str, Any]:
    """What the page says of the colours."""
    return {
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour.astype(int)) for colour in _COLOURS],
        "words": NOT_A_FINDING.capitalize(),
        "lines": list(found.lines),
    }


def _over(pixels: NDArray[np.uint8], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    steps = np.linspace(0, 1, len(_COLOURS))
    colour = np.stack([np.interp(heat, steps, channel) for channel in _COLOURS.T], axis=-1)
    opacity = (_OPACITY * heat)[..., None]
    return np.asarray((1 - opacity) * pixels + opacity * colour).round().astype(np.uint8)
