"""One inference to one result set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.domain.messages import JobOrder, MeasurementResult, ModelIdentity, ResultObject
from gateway.manifest import Manifest
from workers.encode.file import finish, write
from workers.encode.seg import build_seg
from workers.encode.source import Source
from workers.encode.sr import build_sr
from workers.encode.sr_data import build_sr_data
from workers.load.volume import Volume

BUILDERS = {"seg": build_seg, "sr": build_sr, "sr-data": build_sr_data}
"""Role -> what builds its object. `sr` is for people and viewers, `sr-data` for machines."""


def encode(
    volume: Volume,
    labels: NDArray[np.uint8],
    measurements: tuple[MeasurementResult, ...],
    manifest: Manifest,
    identity: ModelIdentity,
    order: JobOrder,
) -> tuple[ResultObject, ...]:
    """Writes one file for each role into the order's output directory; the same arguments always give the same bytes.

    ``labels`` is (slices, rows, columns) on the volume's grid. Raises ModelOutputInvalid where they do not fit volume or
    manifest, InputRefused where no result can be placed on the images.
    """
    source = Source(
        volume=volume, labels=labels, measurements=measurements, manifest=manifest, identity=identity, order=order
    )
    objects = []
    for role, build in BUILDERS.items():
        dataset = build(source)
        finish(dataset, source)
        objects.append(write(dataset, role, Path(order.output_dir)))
    return tuple(objects)
