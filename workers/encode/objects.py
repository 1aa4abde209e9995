"""One inference to one result set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom.dataset import Dataset

from gateway.bundle.manifest import Manifest
from gateway.domain import roles
from gateway.domain.messages import JobOrder, MeasurementResult, ModelIdentity, ResultObject
from workers.encode.file import finish, write
from workers.encode.ko import build_ko
from workers.encode.pdf import build_pdf
from workers.encode.pm import build_pm
from workers.encode.predecessor import name_predecessors
from workers.encode.sc import build_sc
from workers.encode.seg import build_seg, build_seg_all_frames
from workers.encode.seg_labelmap import build_seg_labelmap
from workers.encode.source import Source
from workers.encode.sr import build_sr
from workers.encode.sr_comprehensive import build_sr_comprehensive, build_sr_data_comprehensive
from workers.encode.sr_data import build_sr_data, is_3d, is_there
from workers.encode.sr_strict import build_sr_strict
from workers.infer.output import QuantityMap
from workers.load.masks import Labels
from workers.load.places import Finding
from workers.load.volume import Volume

Builder = Callable[[Source, Sequence[Dataset]], Iterable[Dataset]]

BUILDERS: dict[str, Builder] = {
    roles.SEG: lambda source, _: [build_seg(source)] if source.segments else [],
    roles.SEG_LABELMAP: lambda source, _: (
        [build_seg_labelmap(source)] if source.segments and not source.masks.overlap else []
    ),
    roles.SEG_ALL_FRAMES: lambda source, _: [build_seg_all_frames(source)] if source.segments else [],
    roles.SR: lambda source, _: [build_sr(source)],
    roles.SR_STRICT: lambda source, _: [build_sr_strict(source)],
    roles.SR_DATA: lambda source, _: [build_sr_data(source)] if is_there(source) else [],
    roles.SR_COMPREHENSIVE: lambda source, _: [build_sr_comprehensive(source)],
    roles.SR_DATA_COMPREHENSIVE: lambda source, _: (
        [build_sr_data_comprehensive(source)] if is_there(source) and not is_3d(source) else []
    ),
    roles.PM: lambda source, _: [build_pm(source, found) for found in source.maps],
    roles.SC: lambda source, _: build_sc(source),
    roles.PDF: lambda source, _: [build_pdf(source)],
    roles.KO: lambda source, results: [build_ko(source, results)],
}
"""Role -> what builds its objects from the job and the objects before them; the index comes last."""

_BESIDE = (roles.SC, roles.PDF)
"""Built while the others are: drawing and setting pages is not Python's own work."""


def encode(
    volume: Volume,
    labels: Labels,
    measurements: tuple[MeasurementResult, ...],
    manifest: Manifest,
    identity: ModelIdentity,
    order: JobOrder,
    maps: tuple[QuantityMap, ...] = (),
    findings: tuple[Finding, ...] = (),
    *,
    each: tuple[MeasurementResult, ...] = (),
    provenance: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
) -> tuple[ResultObject, ...]:
    """Writes the result set into the order's output directory; the same arguments always give the same bytes.

    ``labels`` and ``maps`` are on the volume's grid. ``each`` is what was said of single images. ``only`` names the roles
    to write; without it, the usual ones and the order's extra ones. Raises ModelOutputInvalid where they do not fit volume or
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
        findings=findings,
        each=each,
        provenance=provenance or {},
    )
    objects: list[ResultObject] = []
    written: list[Dataset] = []
    wanted = {*roles.USUAL, *order.extra_roles} if only is None else set(only)
    with ThreadPoolExecutor(len(_BESIDE)) as threads:
        beside = {role: threads.submit(_built, role, source) for role in _BESIDE if role in wanted}
        for role in [role for role in BUILDERS if role in wanted]:
            built = beside[role].result() if role in beside else BUILDERS[role](source, tuple(written))
            for number, dataset in enumerate(built, start=1):
                finish(dataset, source)
                name_predecessors(dataset, role, source)
                name = role if number == 1 else f"{role}-{number}"
                written.append(_identity(dataset))
                objects.append(write(dataset, role, Path(order.output_dir) / f"{name}.dcm"))
    return tuple(objects)


def _built(role: str, source: Source) -> list[Dataset]:
    return list(BUILDERS[role](source, ()))


def _identity(dataset: Dataset) -> Dataset:
    """What a reference to an object needs of it; the object itself may be hundreds of megabytes."""
    identity = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(identity, keyword, str(dataset[keyword].value))
    return identity
