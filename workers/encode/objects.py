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
from workers.encode.predecessor import name_predecessors
from workers.encode.seg import build_seg, build_seg_all_frames
from workers.encode.seg_labelmap import build_seg_labelmap
from workers.encode.source import Source
from workers.encode.sr import build_sr
from workers.encode.sr_comprehensive import build_sr_comprehensive, build_sr_data_comprehensive
from workers.encode.sr_data import build_sr_data
from workers.infer.output import QuantityMap
from workers.load.masks import Labels
from workers.load.volume import Volume

BUILDERS: dict[str, Callable[[Source], Iterable[Dataset]]] = {
    roles.SEG: lambda source: [build_seg(source)],
    roles.SEG_LABELMAP: lambda source: [build_seg_labelmap(source)] if _asked_for_labelmap(source) else [],
    roles.SEG_ALL_FRAMES: lambda source: _asked(source, roles.SEG_ALL_FRAMES, build_seg_all_frames),
    roles.SR: lambda source: [build_sr(source)],
    roles.SR_DATA: lambda source: [build_sr_data(source)],
    roles.SR_COMPREHENSIVE: lambda source: _asked(source, roles.SR_COMPREHENSIVE, build_sr_comprehensive),
    roles.SR_DATA_COMPREHENSIVE: lambda source: _asked(
        source, roles.SR_DATA_COMPREHENSIVE, build_sr_data_comprehensive
    ),
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
            name_predecessors(dataset, role, source)
            name = role if number == 1 else f"{role}-{number}"
            objects.append(write(dataset, role, Path(order.output_dir) / f"{name}.dcm"))
    return tuple(objects)


def _asked(source: Source, role: str, build: Callable[[Source], Dataset]) -> Iterable[Dataset]:
    return [build(source)] if role in source.order.extra_roles else []


def _asked_for_labelmap(source: Source) -> bool:
    return roles.SEG_LABELMAP in source.order.extra_roles and not source.masks.overlap
