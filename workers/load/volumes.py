"""Several images at one position: the same image sent again under another UID, or several volumes in one series.

Times, echoes and b-values share a series. Which of them a model is meant for only its manifest can say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from gateway.domain.errors import InputRefused
from workers.load.part10 import BROKEN

_APART = {
    "TemporalPositionIdentifier": "Temporal Position Identifier",
    "TemporalPositionIndex": "Temporal Position Index",
    "AcquisitionNumber": "Acquisition Number",
    "EchoNumbers": "Echo Number",
    "EchoTime": "Echo Time",
    "EffectiveEchoTime": "Effective Echo Time",
    "DiffusionBValue": "Diffusion b-value",
    "InversionTime": "Inversion Time",
    "TriggerTime": "Trigger Time",
    "NominalCardiacTriggerDelayTime": "Nominal Cardiac Trigger Delay Time",
}
"""What tells the volumes of a series apart, in the order in which it is looked at."""

_PLACED, _ROUNDED = ("ImageOrientationPatient", "PixelSpacing"), 1e-4
_FORM = ("Rows", "Columns", "BitsAllocated", "PixelRepresentation", "RescaleSlope", "RescaleIntercept")

Position = tuple[float, float, float]


def one_volume(
    datasets: Sequence[Dataset], positions: Sequence[Position], wanted: Literal["refuse", "first", "last"]
) -> tuple[list[Dataset], tuple[str, ...]]:
    """The images of one volume, one at each position, and what has to be said of those left out.

    Images with the same pixels at the same position, of the same time, echo and so on, are one image. Raises InputRefused
    (`duplicate_position`) where the series holds several volumes and the manifest does not say which, or nothing tells them apart.
    """
    at = [(round(x, 2), round(y, 2), round(z, 2)) for x, y, z in positions]
    everywhere = len(set(at))
    if everywhere == len(datasets):
        return list(datasets), ()
    images = list(zip(datasets, at, strict=True))
    single = _without_copies(images)
    if len(single) == everywhere:
        said = f"{len(datasets) - everywhere} images were there again with the same pixels; one of each was used."
        return [dataset for dataset, _ in single], (said,)
    told = []
    for keyword, name in _APART.items():
        values = {value for dataset, _ in images if (value := _number(dataset, keyword)) is not None}
        if len(values) < 2:
            continue
        chosen = max(values) if wanted == "last" else min(values)
        kept = [(dataset, place) for dataset, place in images if _number(dataset, keyword) == chosen]
        if len({place for _, place in kept}) == everywhere:
            images = kept
            told.append(f"{name} {chosen:g} of {len(values)}")
    if wanted == "refuse" or len(images) != everywhere:
        apart = f", which differ in {', '.join(told)}" if told and len(images) == everywhere else ""
        raise InputRefused(
            f"{len(datasets)} images lie at {everywhere} positions: the series holds more than one volume{apart}",
            code="duplicate_position",
        )
    return [dataset for dataset, _ in images], (
        f"Of several volumes in the series the {wanted} was used: {', '.join(told)}.",
    )


def check_not_interleaved(datasets: Sequence[Dataset]) -> None:
    """Raises InputRefused (`uneven`) where slices of an uneven stack, in their order, take turns between two volumes.

    Two volumes that lie a little beside each other look like one with uneven distances."""
    for keyword, name in _APART.items():
        values = [_number(dataset, keyword) for dataset in datasets]
        changes = sum(one != other for one, other in pairwise(values))
        if changes >= len(set(values)):
            raise InputRefused(
                f"the slices are unevenly spaced and take turns in {name}: the series holds more than one volume",
                code="uneven",
            )


def _without_copies(images: Sequence[tuple[Dataset, Position]]) -> list[tuple[Dataset, Position]]:
    """Of images alike the one with the lowest UID, whatever the order of files."""
    there: dict[Position, list[Dataset]] = defaultdict(list)
    for dataset, place in sorted(images, key=lambda image: str(image[0].SOPInstanceUID)):
        if not any(_alike(dataset, other) for other in there[place]):
            there[place].append(dataset)
    return [(dataset, place) for place, found in there.items() for dataset in found]


def _alike(one: Dataset, other: Dataset) -> bool:
    same = all(str(one.get(keyword, "")) == str(other.get(keyword, "")) for keyword in (*_FORM, *_APART))
    same = same and all(_near(one.get(keyword), other.get(keyword)) for keyword in _PLACED)
    syntaxes = {str(dataset.file_meta.TransferSyntaxUID) for dataset in (one, other)}
    return same and len(syntaxes) == 1 and bytes(one.get("PixelData", b"")) == bytes(other.get("PixelData", b"1"))


def _near(one: object, other: object) -> bool:
    """Whether two lists of decimal strings say the same, however they were rounded."""
    try:
        return bool(np.allclose(np.array(one, float), np.array(other, float), rtol=0, atol=_ROUNDED))
    except BROKEN:
        return one == other


def _number(dataset: Dataset, keyword: str) -> float | None:
    try:
        value = dataset.get(keyword)
        return None if value is None or value == "" else float(value)
    except BROKEN:
        return None
