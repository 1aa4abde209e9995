"""The part of a manifest that says which images a model takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from gateway.bundle.part import Inside, Name, Part, Range

Figure = Literal[
    "size",
    "noise",
    "air",
    "saturated",
    "empty",
    "quartile",
    "median",
    "upper",
    "bright",
    "sharp",
    "cut",
    "likeness",
    "turned",
]
"""What an envelope compares: docs/manifest.md says what each is."""


class SliceLimits(Part):
    """How many slices a series may have."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)] = 5000

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self


class Geometry(Part):
    """The geometry a model was made for. Lengths in mm."""

    slices: SliceLimits = SliceLimits()
    spacing: Range = Range(min=0.1, max=10.0)  # of voxels, each axis
    extent: Range = Range(min=1.0, max=2000.0)  # of the volume, each axis
    gaps: Literal["refuse", "flag"] = "refuse"  # what to do where slices are missing
    uneven: Literal["resample", "refuse"] = "resample"  # and where they are unevenly spaced
    volumes: Literal["refuse", "first", "last"] = "refuse"  # and where a series holds several: which one is meant


class Envelope(Inside):
    """What to do with images that are not like those a model was made for."""

    fingerprint: Annotated[str, Field(min_length=1)]  # relative to the bundle; made by `hilum models fingerprint`
    outside: Literal["refuse", "flag"] = "refuse"
    flag: tuple[Figure, ...] = ()  # figures that are only told where the others refuse
    reach: Annotated[float, Field(gt=0)] = 1.0  # how far a figure may lie outside, in widths of its range

    @model_validator(mode="after")
    def _stays(self) -> Self:
        self.check(self.fingerprint, "fingerprint")
        return self


class Instead(Part):
    """Another model that a study is for when a series of this one is missing."""

    run: Name  # the name in its manifest


class Input(Part):
    """Which series a model takes."""

    name: Name = "image"  # tells several inputs apart
    modality: Annotated[tuple[str, ...], Field(min_length=1)]
    body_part: tuple[str, ...] = ()  # Body Part Examined, where the images name one; empty takes all
    select: str = "true"  # CEL over `study` and `series`, as in rules
    plane: Literal["any", "axial", "coronal", "sagittal"] = "any"  # the nearest to which the slices lie
    contrast: Literal["any", "with", "without"] = "any"  # Contrast/Bolus Agent (0018,0010) is named, or is not
    geometry: Geometry = Geometry()
    padding: FiniteFloat | None = (
        None  # in place of padding, in the images' unit; none: -1000 in CT, else the least measured
    )
    envelope: Envelope | None = None
    study: Literal["same", "prior"] = (
        "same"  # of several inputs: of the study itself, or of an earlier one of the patient
    )
    missing: Literal["refuse", "zeros"] | Instead = "refuse"  # of several inputs, when no series fits this one


class Registration(Part):
    """How the series of several inputs are brought onto the grid of the first."""

    method: Literal["auto", "always", "never"] = "auto"  # auto: only where they have no common frame of reference
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.06  # least mutual information, as a share of the entropy
    overlap: Annotated[float, Field(ge=0, le=1)] = (
        0.7  # least part of the first series' body that another one must cover
    )
    outside: Literal["refuse", "flag"] = "refuse"  # what to do below these
