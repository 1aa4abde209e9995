"""Result sets over every kind of source geometry, written by the real encoder, for the tests of encoder, gate and judges."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.bundle.manifest import Manifest
from gateway.domain.messages import Code, JobOrder, MeasurementResult, ModelIdentity, RequestedProcedure, ResultObject
from gateway.domain.roles import ROLES
from tests.support.manifests import plain_manifest
from tests.support.series import Change, job_order, write_series
from workers.encode.conclusion import conclude
from workers.encode.objects import encode
from workers.infer.answer import Answer
from workers.infer.output import QuantityMap
from workers.load.places import Finding
from workers.load.volume import Volume
from workers.verify.gate import verify

IDENTITY = ModelIdentity(
    name="two-balls", version="1.2.3", digest="ab" * 32, device_uid="2.25.1234567890", manufacturer="Hilum"
)

PROVENANCE = {"device": "cpu", "precision": "float32", "seed": "", "torch": "2.13.0"}


def code(value: str, scheme: str, meaning: str) -> dict[str, str]:
    """A coded concept as the manifest's file has it."""
    return {"value": value, "scheme": scheme, "meaning": meaning}


SEGMENTS = (
    {
        "number": 1,
        "label": "Liver",
        "category": code("123037004", "SCT", "Anatomical Structure"),
        "type": code("10200004", "SCT", "Liver"),
        "cielab": (54.0, 40.0, 35.0),
    },
    {
        "number": 2,
        "label": "Lesion",
        "category": code("49755003", "SCT", "Morphologically Abnormal Structure"),
        "type": code("4147007", "SCT", "Mass"),
        "anatomic_region": code("10200004", "SCT", "Liver"),
        "cielab": (85.0, -60.0, 70.0),
    },
)


def manifest(segments: int = 1, *, plausible: tuple[float, float] | None = None, **changes: object) -> Manifest:
    """A manifest with one or two segments, whose volumes are measured in mL."""
    limits = None if plausible is None else {"min": plausible[0], "max": plausible[1]}
    measurements = [
        {
            "kind": "volume",
            "segment": number,
            "name": code("118565006", "SCT", "Volume"),
            "unit": code("mL", "UCUM", "milliliter"),
            "plausible": limits,
        }
        for number in range(1, segments + 1)
    ]
    content: dict[str, object] = {
        "name": "two-balls",
        "version": "1.2.3",
        "title": "Two balls",
        "intended_use": "Tests only; never for a patient.",
        "device": {"manufacturer": "Hilum", "model_name": "two-balls", "uid": "2.25.1234567890"},
        "input": {"modality": ["CT", "MR"]},
        "output": {"kind": "segmentation", "segments": SEGMENTS[:segments], "measurements": measurements},
    }
    return plain_manifest(**(content | changes))


def frame(
    columns_along: tuple[float, float, float],
    rows_along: tuple[float, float, float],
    slices_along: tuple[float, float, float] | None = None,
    *,
    spacing: tuple[float, float, float] = (3.0, 1.2, 0.9),
    origin: tuple[float, float, float] = (-31.5, 12.25, -40.0),
) -> NDArray[np.float64]:
    """Affine of a stack by the directions of its columns' index, rows' index and slices; spacing slices, rows, columns."""
    across, down = np.array(columns_along, float), np.array(rows_along, float)
    through = np.cross(across, down) if slices_along is None else np.array(slices_along, float)
    affine = np.eye(4)
    for column, (direction, step) in enumerate(zip((through, down, across), spacing, strict=True)):
        affine[:3, column] = direction / np.linalg.norm(direction) * step
    affine[:3, 3] = origin
    return affine


def oblique() -> NDArray[np.float64]:
    """A stack turned about two axes."""
    tilt, swing = 0.41, -0.27
    across = (np.cos(swing), np.sin(swing), 0.0)
    down = (-np.sin(swing) * np.cos(tilt), np.cos(swing) * np.cos(tilt), np.sin(tilt))
    return frame(across, down)


def balls(shape: tuple[int, int, int], segments: int = 1) -> NDArray[np.uint8]:
    """A ball off the middle in each direction (so that no flip maps it on itself); a second one beside it."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    labels = np.zeros(shape, np.uint8)
    labels[np.linalg.norm(grid - np.reshape((-0.2, 0.3, -0.25), (3, 1, 1, 1)), axis=0) < 0.5] = 1
    if segments > 1:
        labels[np.linalg.norm(grid - np.reshape((0.3, -0.3, 0.4), (3, 1, 1, 1)), axis=0) < 0.3] = 2
    return labels


UNCERTAINTY = Code(value="C0087130", scheme="UMLS", meaning="Uncertainty")
RATIO = Code(value="1", scheme="UCUM", meaning="no units")
AXIAL = frame((1, 0, 0), (0, 1, 0))
SHAPE = (9, 40, 48)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A source series and what a model painted on it."""

    affine: NDArray[np.float64]
    shape: tuple[int, int, int] = SHAPE
    modality: str = "CT"
    segments: int = 1
    paint: Callable[[NDArray[np.uint8]], None] | None = None  # changes the two balls
    missing: Collection[int] = ()  # slices without an image
    places: tuple[float, ...] = ()  # of slices that are unevenly spaced, in steps of the affine
    thicknesses: tuple[float, ...] = ()  # of slices, where they differ
    attributes: dict[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    requested: tuple[RequestedProcedure, ...] = ()
    extra_roles: tuple[str, ...] = ()  # to write beside the usual ones
    roles: tuple[str, ...] = ()  # to write, and no others; empty: the usual and the extra ones
    answer: Answer | None = None  # of a model that paints nothing
    mapped: bool = False  # whether the model gives a map too

    def maps(self) -> tuple[QuantityMap, ...]:
        """Numbers that differ in every voxel, zero on the first slice."""
        if not self.mapped:
            return ()
        values = np.random.default_rng(2).random(self.shape, dtype=np.float32)
        values[0] = 0
        return (QuantityMap(name="uncertainty", label="Uncertainty", values=values, quantity=UNCERTAINTY, unit=RATIO),)

    def labels(self) -> NDArray[np.uint8]:
        """The mask, (slices, rows, columns)."""
        labels = balls(self.shape, self.segments)
        if self.paint is not None:
            self.paint(labels)
        return labels


def _sheared(affine: NDArray[np.float64], down: float, right: float) -> NDArray[np.float64]:
    """As a tilted gantry leaves it: each slice moved by parts of a row and a column against the one before."""
    result = affine.copy()
    result[:3, 0] += down * affine[:3, 1] + right * affine[:3, 2]
    return result


def _nothing(labels: NDArray[np.uint8]) -> None:
    labels[:] = 0


def _gaps(labels: NDArray[np.uint8]) -> None:
    labels[[3, 5]] = 0


def _only_first(labels: NDArray[np.uint8]) -> None:
    labels[labels == 2] = 0


CHINESE = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Wang^XiaoDong=王^小東=", "StudyDescription": "肝脏 CT"}
# The second byte of the surname in GB18030 is `|`.
GB18030 = {"SpecificCharacterSet": "GB18030", "PatientName": "Ye^Qing=葉^青"}

ASKED = RequestedProcedure(
    accession_number="A1",
    placer_order_number="PL1",
    filler_order_number="葉-1",
    requested_procedure_id="much too long for a short string",
    procedure=(Code(value="169069000", scheme="SCT", meaning="CT of chest"),),
)

CASES = {
    "ordered": Case(affine=AXIAL, requested=(ASKED,)),
    "axial": Case(affine=AXIAL),
    "descending": Case(affine=frame((1, 0, 0), (0, 1, 0), (0, 0, -1)), modality="MR"),
    "coronal": Case(affine=frame((1, 0, 0), (0, 0, -1)), modality="MR"),
    "sagittal": Case(
        affine=frame((0, 1, 0), (0, 0, -1)),
        segments=2,
        attributes={"BodyPartExamined": "KNEE", "Laterality": "R"},
        extra_roles=("seg-all-frames", "sr-comprehensive", "sr-data-comprehensive"),
    ),
    "oblique": Case(affine=oblique(), modality="MR", segments=2, attributes=CHINESE, roles=ROLES, mapped=True),
    "odd matrix": Case(affine=AXIAL, shape=(9, 37, 43), attributes=GB18030),
    "nothing found": Case(affine=AXIAL, segments=2, paint=_nothing),
    "one of two found": Case(affine=AXIAL, segments=2, paint=_only_first),
    "gaps in the mask": Case(affine=oblique(), paint=_gaps),
    "slices missing": Case(
        affine=AXIAL, modality="MR", missing=(4,), flags=("1 slice is missing and was interpolated.",)
    ),
}


CASES |= {
    "tilted gantry": Case(affine=_sheared(AXIAL, 0.9, 0.0), segments=2, mapped=True, roles=ROLES),
    "sheared oblique": Case(affine=_sheared(oblique(), -0.4, 0.7), modality="MR"),
    "two spacings": Case(
        affine=AXIAL,
        segments=2,
        places=(0, 1, 2, 3, 4, 6, 8, 10, 12),
        thicknesses=(3.0,) * 5 + (6.0,) * 4,
        mapped=True,
        roles=ROLES,
    ),
    "uneven, tilted, oblique": Case(
        affine=_sheared(oblique(), -0.4, 0.7), modality="MR", places=(0, 1.1, 2.6, 3.8, 5.3, 6.3, 8.1, 9.2, 11)
    ),
    "coronal, from behind": Case(affine=frame((-1, 0, 0), (0, 0, -1)), modality="MR", mapped=True),
}


UPRIGHT = [
    name
    for name, case in CASES.items()
    if np.allclose(case.affine[:3, 0] @ case.affine[:3, 1:3], 0) and not case.places
]
"""Volumes of ITK (which dcmqi makes) and highdicom know no shear, and one distance between slices: there other stacks come out as
an upright, even block, or as an error. Viewers that go by image show them right."""


@dataclass(frozen=True, kw_only=True)
class ResultSet:
    """What the encoder was given and what it wrote."""

    volume: Volume
    labels: NDArray[np.uint8]
    measurements: tuple[MeasurementResult, ...]
    manifest: Manifest
    order: JobOrder
    objects: tuple[ResultObject, ...]
    maps: tuple[QuantityMap, ...]
    source: Path  # directory of the source series, nothing else in it
    findings: tuple[Finding, ...] = ()
    each: tuple[MeasurementResult, ...] = ()

    def path(self, role: str) -> Path:
        """The file of a role; the first where there are several."""
        return Path(self.order.output_dir) / next(found.file for found in self.objects if found.role == role)

    def paths(self) -> list[Path]:
        """The files of all objects."""
        return [Path(self.order.output_dir) / found.file for found in self.objects]

    def read(self, role: str) -> Dataset:
        """The object of a role."""
        return dcmread(self.path(role))

    def verify(self) -> None:
        """Sends the result set through the gate."""
        verify(
            self.objects,
            self.volume,
            self.labels,
            self.measurements,
            self.manifest,
            self.order,
            self.maps,
            self.findings,
            self.each,
        )

    def changed(self, role: str, change: Callable[[Dataset], None]) -> ResultSet:
        """The same set with one object (the first of its role) changed on disk, and its description brought up to date."""
        dataset, path = self.read(role), self.path(role)
        change(dataset)
        dataset.save_as(path)
        data = path.read_bytes()
        described = [
            dataclasses.replace(found, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            if found.file == path.name
            else found
            for found in self.objects
        ]
        return dataclasses.replace(self, objects=tuple(described))


_WRITTEN = tempfile.TemporaryDirectory(prefix="hilum-cases-")


@functools.cache
def written(name: str) -> ResultSet:
    """The result set of a case, written once in a run of tests; not to be changed."""
    return result_set(Path(_WRITTEN.name) / name.replace(" ", "-"), CASES[name])


def volume_of(paths: Collection[Path], case: Case) -> Volume:
    """The series as loading would give it; interpolated slices have no header."""
    headers = iter([dcmread(path, stop_before_pixels=True) for path in paths])
    return Volume(
        voxels=np.zeros(case.shape, np.float32),
        affine=case.affine,
        headers=tuple(None if index in case.missing else next(headers) for index in range(case.shape[0])),
        flags=case.flags,
        places=case.places,
    )


def result_set(
    directory: Path, case: Case, *, job_id: str = "0" * 32, change: Change | None = None, **changes: object
) -> ResultSet:
    """Writes the series of a case and its result set below a directory.

    ``change(index, dataset)`` may do anything to an image; ``changes`` go into the manifest.
    """

    def changed(index: int, dataset: Dataset) -> None:
        if case.thicknesses:
            dataset.SliceThickness = case.thicknesses[index]
        if change is not None:
            change(index, dataset)

    paths = write_series(
        directory / "source",
        np.random.default_rng(1).integers(0, 1200, case.shape),
        case.affine,
        modality=case.modality,
        missing=case.missing,
        places=case.places,
        attributes=case.attributes,
        seed=str(directory.name),
        change=changed,
    )
    volume, contract = volume_of(paths, case), manifest(case.segments, **changes)
    order = job_order(paths, directory, directory / "result", job_id=job_id)
    order = dataclasses.replace(order, extra_roles=case.extra_roles, requested=case.requested)
    answer, maps = case.answer or Answer(labels=case.labels()), case.maps()
    found = conclude(answer, volume, contract, job_id)
    objects = encode(
        volume,
        answer.labels,
        found.measurements,
        contract,
        IDENTITY,
        order,
        maps,
        found.findings,
        each=found.each,
        provenance=PROVENANCE,
        only=case.roles or None,
    )
    return ResultSet(
        volume=volume,
        labels=answer.labels,
        measurements=found.measurements,
        manifest=contract,
        order=order,
        objects=objects,
        maps=maps,
        source=directory / "source",
        findings=found.findings,
        each=found.each,
    )
