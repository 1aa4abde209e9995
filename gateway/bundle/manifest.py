"""A bundle's `hilum.yaml`: what a model takes, what it puts out, and what it is for.

A MONAI bundle says how to run a network; the manifest beside it says when it may be run and what its output means in
DICOM. Gateway (which series fits?) and workers (how to encode?) read the same file. Documented in docs/manifest.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gateway.bundle.explanation import Calibration, Explanation
from gateway.bundle.fusion import Fusion
from gateway.bundle.fusion import check_weights as check_shares
from gateway.bundle.input import Input, Registration
from gateway.bundle.network import Acceleration, Ensemble, Training, Uncertainty, Weights
from gateway.bundle.output import Output
from gateway.bundle.part import Inside, Part, Range


class Device(Part):
    """Who made the algorithm (IHE AIR: contributing equipment 99IHE 1630)."""

    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]
    model_name: Annotated[str, Field(min_length=1, max_length=64)]
    uid: Annotated[str, Field(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$", max_length=64)]  # a new one for each build


class Resources(Part):
    """What one job may use."""

    device: Literal["any", "cpu", "cuda", "mps"] = "any"  # what the network needs; `any` takes the best that is there
    memory_mib: Annotated[int, Field(ge=256)] = 8192
    timeout_s: Annotated[float, Field(gt=0)] = 600.0


class Expected(Range):
    """What a measurement must be, in the manifest's unit."""

    segment: Annotated[int, Field(ge=1)]


class AcceptanceCase(Inside):
    """Images in the bundle, and what must come of them on every machine before the model may run there."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    input: Annotated[str, Field(min_length=1)]  # folder of DICOM files, relative to the bundle
    expect: tuple[Expected, ...] = ()
    refused: str = ""  # the code with which the images must be refused instead

    @model_validator(mode="after")
    def _expects_one_thing(self) -> Self:
        self.check(self.input, "input")
        if bool(self.expect) == bool(self.refused):
            raise ValueError("a case says either what to expect, or with which code the images are refused")
        return self


class Manifest(Part):
    """The whole of `hilum.yaml`."""

    manifest: Literal[1]
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=64)]
    title: Annotated[str, Field(min_length=1, max_length=64)]
    intended_use: Annotated[str, Field(min_length=1)]
    license: str
    device: Device
    weights: Weights | None = None  # of a network; a fusion has none
    ensemble: Ensemble | None = None
    fusion: Fusion | None = None  # of other models' answers; results lie on the images of `input`
    inputs: Annotated[
        tuple[Input, ...], Field(max_length=8)
    ] = ()  # several series into one network, the reference first
    input: Input  # the one series, or the first of several
    registration: Registration = Registration()
    output: Output
    resources: Resources = Resources()
    uncertainty: Uncertainty | None = None
    acceleration: Acceleration | None = None
    training: Training | None = None
    on_refusal: Literal["report", "envelope", "hold"] = "envelope"  # of which refusals archive and EHR are told
    calibration: Calibration | None = None
    explanation: Explanation | None = None
    acceptance: tuple[AcceptanceCase, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, data: Any) -> Any:
        """Results lie on the first of several inputs: it is *the* input wherever one is meant."""
        several = data.get("inputs") if isinstance(data, dict) else None
        if not isinstance(several, list | tuple) or not several:
            return data
        if len(several) < 2:
            raise ValueError("`inputs` is a list of two series or more; for one write `input`")
        if data.get("input", several[0]) != several[0]:
            raise ValueError("write `input` for one series or `inputs` for several, not both")
        return {**data, "input": several[0]}

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len({item.name for item in self.inputs}) < len(self.inputs):
            raise ValueError("each of `inputs` needs a name of its own")
        if self.input.study != "same":
            raise ValueError("the first input is of the study itself: results lie on its images")
        if self.input.missing != "refuse":
            raise ValueError("nothing can take the place of the first input: results lie on its images")
        return self

    @property
    def series(self) -> tuple[Input, ...]:
        """All inputs, in the order of the network's channels."""
        return self.inputs or (self.input,)

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        if self.uncertainty is not None and self.output.kind != "segmentation":
            raise ValueError("uncertainty is for segmentations")
        if self.acceleration is not None and (self.output.boxes is not None or self.output.scope == "image"):
            raise ValueError(
                "acceleration is for models whose whole answer can be compared, not for boxes or single images"
            )
        if self.uncertainty is not None and self.uncertainty.method == "ensemble" and self.ensemble is None:
            raise ValueError("uncertainty by ensemble needs `ensemble` with the weights of its members")
        if self.ensemble is not None and self.ensemble.combine != "mean" and self.output.kind != "segmentation":
            raise ValueError("numbers are combined by mean: vote and staple are for labels")
        check_shares(
            [each.weight for each in self.weight_files], self.ensemble.combine if self.ensemble else "one network"
        )
        return self

    @model_validator(mode="after")
    def _fused(self) -> Self:
        if (self.weights is None) == (self.fusion is None):
            raise ValueError("a bundle has `weights` of a network, or a `fusion` of other models")
        if self.fusion is None:
            return self
        own = (self.ensemble, self.uncertainty, self.acceleration, self.training, self.calibration, self.explanation)
        if self.inputs or any(own):
            raise ValueError("a fusion has one `input`, and nothing that is about a network of its own")
        output = self.output
        numbers = len(output.findings) + len(output.values)
        plain = output.scope != "image" and not output.overlapping
        self.fusion.check_output(output.kind, numbers, plain=plain)
        return self

    @property
    def samples(self) -> int:
        """How many answers uncertainty is judged by."""
        if self.uncertainty is None:
            return 0
        if self.uncertainty.method == "ensemble" and self.ensemble is not None:
            return self.ensemble.count
        return self.uncertainty.samples

    @property
    def weight_files(self) -> tuple[Weights, ...]:
        """All of them; none of a fusion."""
        return (*((self.weights,) if self.weights else ()), *(self.ensemble.members if self.ensemble else ()))

    @property
    def shares(self) -> tuple[float, ...]:
        """How much each of `weight_files` counts; they sum to 1."""
        count = len(self.weight_files)
        return tuple(1 / count if each.weight is None else each.weight for each in self.weight_files)

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.calibration is not None:
            if self.output.kind != "classification" or self.output.scope == "image":
                raise ValueError("calibration is for classifications of a series")
            Inside.check(self.calibration.file, "calibration")
        if self.explanation is not None:
            if self.output.kind not in ("classification", "segmentation") or self.output.scope == "image":
                raise ValueError("explanation is for classifications of a series and for segmentations")
            if (self.explanation.of or 1) > len(self.output.findings or self.output.segments):
                raise ValueError("explanation is of a finding or segment that is not defined")
        return self


def schema() -> dict[str, Any]:
    """The JSON Schema of `hilum.yaml`, for editors and other programs: one series or several, never both."""
    found = Manifest.model_json_schema()
    found["required"] = [key for key in found["required"] if key != "input"]
    images = [{"required": ["input"]}, {"required": ["inputs"]}]
    return found | {"oneOf": images, "anyOf": [{"required": ["weights"]}, {"required": ["fusion"]}]}
