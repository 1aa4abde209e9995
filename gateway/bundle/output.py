"""The part of a manifest that says what a model puts out, and what it means in DICOM."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.bundle.part import CodeValue, Part, Range

_Lightness = Annotated[float, Field(ge=0, le=100)]
_Chroma = Annotated[float, Field(ge=-128, le=127)]


class SegmentSpec(Part):
    """One label of a segmentation."""

    number: Annotated[int, Field(ge=1, le=255)]
    label: Annotated[str, Field(min_length=1, max_length=64)]
    category: CodeValue
    type: CodeValue
    anatomic_region: CodeValue | None = None
    laterality: CodeValue | None = None
    cielab: tuple[_Lightness, _Chroma, _Chroma]  # L*, a*, b*


_VOLUMES, _LENGTHS, _AREAS = ("mL", "ml", "cm3", "mm3"), ("mm", "cm"), ("mm2", "cm2")
UNITS: dict[str, tuple[str, ...]] = {
    "volume": _VOLUMES,
    "longest_diameter": _LENGTHS,
    "perpendicular_diameter": _LENGTHS,
    "surface": _AREAS,
    "count": ("{lesions}", "1"),
}
"""Kind of measurement -> UCUM units it can be given in; of mean and percentile it is that of the images' own values."""


class MeasurementSpec(Part):
    """One quantity to measure; `docs/manifest.md` defines each kind."""

    kind: Literal["volume", "longest_diameter", "perpendicular_diameter", "surface", "count", "mean", "percentile"]
    segment: Annotated[int, Field(ge=1)]
    per: Literal["segment", "lesion"] = "segment"  # of the whole segment, or of each of its `lesions`
    name: CodeValue
    unit: CodeValue  # UCUM
    percentile: Annotated[float, Field(ge=0, le=100)] | None = None  # of `kind: percentile`
    plausible: Range | None = None  # in that unit; outside it the result does not leave

    @model_validator(mode="after")
    def _ucum(self) -> Self:
        known = UNITS.get(self.kind)
        if self.unit.scheme != "UCUM" or (known is not None and self.unit.value not in known):
            units = f"one of UCUM {', '.join(known)}" if known else "of UCUM"
            raise ValueError(f"unit of a {self.kind} must be {units}")
        if (self.kind == "percentile") != (self.percentile is not None):
            raise ValueError("percentile says which, for kind: percentile alone")
        return self


class LesionSpec(Part):
    """Connected parts of a segment, each reported by itself."""

    segment: Annotated[int, Field(ge=1)]
    smallest: Annotated[float, Field(ge=0)] = 0.0  # mm3; a smaller part is no lesion
    most: Annotated[int, Field(ge=1, le=500)] = 20  # the largest so many; the others are counted


class FindingSpec(Part):
    """One finding that a classification gives the probability of, or a class of a detection's boxes."""

    name: CodeValue
    site: CodeValue | None = None
    laterality: CodeValue | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # probability from which it is present


class BoxSpec(Part):
    """How a detection's boxes are written, and which of them count."""

    mode: Literal["xyxy", "xxyy", "ccwh", "xyzxyz", "xxyyzz", "xyxyzz", "cccwhd"] = "xyzxyz"  # as MONAI names them
    coordinates: Literal["index", "ras", "lps"] = "index"  # of `image` as preprocessing left it, or mm in the patient
    whole_numbers: Literal["centres", "edges"] = "centres"  # what an index without a fraction means
    score: Annotated[float, Field(ge=0, le=1)] = 0.5  # a box below it is none, where its class has no threshold
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.5  # of two of a class that overlap (IoU) more, the better stays
    most: Annotated[int, Field(ge=1, le=500)] = 50  # the best so many; the others are counted

    @property
    def planar(self) -> bool:
        """Whether boxes lie on one image each."""
        return len(self.mode) == 4


class ValueSpec(Part):
    """One number of a regression."""

    name: CodeValue
    unit: CodeValue  # UCUM
    plausible: Range | None = None  # in that unit; outside it the result does not leave

    @model_validator(mode="after")
    def _ucum(self) -> Self:
        if self.unit.scheme != "UCUM":
            raise ValueError("unit must be of UCUM")
        return self


class Output(Part):
    """What a model puts out."""

    kind: Literal["segmentation", "classification", "regression", "detection"]
    scope: Literal["study", "series", "image"] = (
        "series"  # what one answer is about; `image`: the model sees one at a time
    )
    segments: tuple[SegmentSpec, ...] = ()
    overlapping: bool = False  # `pred` has a channel of 0 and 1 for each segment, and a voxel may belong to several
    measurements: tuple[MeasurementSpec, ...] = ()
    lesions: tuple[LesionSpec, ...] = ()  # segments whose connected parts are reported one by one
    findings: tuple[FindingSpec, ...] = ()  # of a classification, in the order of `pred`: probabilities from 0 to 1;
    # of a detection: its classes, in the order of `label` 0, 1, ...
    boxes: BoxSpec | None = None  # of a detection
    exclusive: bool = False  # of a classification: one finding holds (a softmax), or each may (sigmoids)
    values: tuple[ValueSpec, ...] = ()  # of a regression, in the order of `pred`

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        needed = {
            "segments": ("segmentation",),
            "findings": ("classification", "detection"),
            "values": ("regression",),
            "boxes": ("detection",),
        }
        for key, kinds in needed.items():
            if (self.kind in kinds) != bool(getattr(self, key)):
                raise ValueError(f"{key} are for kind: {' and '.join(kinds)}, which needs them")
        if self.kind != "segmentation" and (self.measurements or self.overlapping or self.lesions):
            raise ValueError("measurements, lesions and overlapping are for kind: segmentation")
        if self.boxes is not None and self.boxes.planar != (self.scope == "image"):
            raise ValueError("boxes on single images (xyxy, xxyy, ccwh) are for scope: image, which needs such")
        if self.boxes is not None and self.boxes.planar and self.boxes.coordinates != "index":
            raise ValueError("boxes on single images have coordinates: index")
        if self.kind == "regression" and self.scope == "image":
            raise ValueError("a regression is about a series or a study")
        if self.kind == "segmentation" and self.scope != "series":
            raise ValueError("scope is for kind: classification, regression and detection")
        return self

    @model_validator(mode="after")
    def _lesions_defined(self) -> Self:
        parted = [lesion.segment for lesion in self.lesions]
        if len(set(parted)) < len(parted) or not set(parted) <= {one.number for one in self.segments}:
            raise ValueError("lesions name a segment twice, or one that is not defined")
        for spec in self.measurements:
            if spec.per == "lesion" and (spec.segment not in parted or spec.kind == "count"):
                raise ValueError("per: lesion is for a segment that has lesions, and not for kind: count")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numbers = [segment.number for segment in self.segments]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError("segments must be numbered 1, 2, 3, ... in order")
        for measurement in self.measurements:
            if measurement.segment not in numbers:
                raise ValueError(f"measurement of segment {measurement.segment}, which is not defined")
        return self
