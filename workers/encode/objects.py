"""One inference to one result set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from gateway.domain import roles
from gateway.domain.messages import JobOrder, MeasurementResult, ModelIdentity, ResultObject
from gateway.manifest import Manifest
from workers.encode.file import finish, write
from workers.encode.pm import build_pm
from workers.encode.seg import build_seg
from workers.encode.seg_labelmap import build_seg_labelmap
from workers.encode.source import Source
from workers.encode.sr import build_sr
from workers.encode.sr_data import build_sr_data
from workers.infer.output import QuantityMap
from workers.load.masks import Labels
from workers.load.volume import Volume

BUILDERS: dict[str, Callable[[Source], Iterable[Dataset]]] = {
    roles.SEG: lambda source: [build_seg(source)],
    roles.SEG_LABELMAP: lambda source: [build_seg_labelmap(source)] if _asked_for_labelmap(source) else [],
    roles.SR: lambda source: [build_sr(source)],
    roles.SR_DATA: lambda source: [build_sr_data(source)],
    roles.PM: lambda source: [build_pm(source, found) for found in source.maps],
}
"""Role -> what builds its objects, in the order in which they are written."""


def encode(
    volume: Volume,
    labels: Labels,
    measurements: tuple[MeasurementResult, ...],
    manifest: Manifest,
    identity: ModelIdentity,
    order: JobOrder,
    maps: tuple[QuantityMap, ...] = (),
) -> tuple[ResultObject, ...]:
    """Writes the result set into the order's output directory; the same arguments always give the same bytes.

    ``labels`` and ``maps`` are on the volume's grid. Raises ModelOutputInvalid where they do not fit volume or
    manifest, InputRefused where no result can be placed on the images.
    """
    source = Source(
        volume=volume,
        labels=labels,
        measurements=measurements,
        manifest=manifest,
        identity=identity,
        order=order,
        maps=maps,
    )
    objects = []
    for role, build in BUILDERS.items():
        for number, dataset in enumerate(build(source), start=1):
            finish(dataset, source)
            name = role if number == 1 else f"{role}-{number}"
            objects.append(write(dataset, role, Path(order.output_dir) / f"{name}.dcm"))
    return tuple(objects)


def _asked_for_labelmap(source: Source) -> bool:
    return roles.SEG_LABELMAP in source.order.extra_roles and not source.masks.overlap
