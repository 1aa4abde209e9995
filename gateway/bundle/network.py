"""The part of a manifest that says which network a model is, and how it is run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.bundle.fusion import Weight
from gateway.bundle.part import Inside, Part


class Weights(Inside):
    """The file that holds the trained parameters."""

    file: Annotated[
        str, Field(min_length=1)
    ]  # relative to the bundle: .safetensors, .onnx, TorchScript, or a state dict read with weights_only=True
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    weight: Weight | None = None  # of a member of an ensemble: of all or of none; they sum to 1

    @model_validator(mode="after")
    def _inside(self) -> Self:
        self.check(self.file, "weights")
        return self


class Ensemble(Part):
    """More weights of the same network, trained apart: all of them answer, and one answer is made of theirs."""

    members: Annotated[tuple[Weights, ...], Field(min_length=1, max_length=31)]  # beside `weights`
    combine: Literal["mean", "vote", "staple"] = "mean"  # of the network's outputs; of the labels

    @property
    def count(self) -> int:
        """Of all members."""
        return 1 + len(self.members)


class Uncertainty(Part):
    """How often a model is asked again to see how sure it is."""

    method: Literal[
        "mc_dropout", "tta", "ensemble"
    ]  # dropout left on; images turned over, brightened, with noise; members
    samples: Annotated[int, Field(ge=2, le=100)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    map: bool = True  # write the entropy as a Parametric Map
    high: Annotated[float, Field(gt=0, le=1)] = 0.95  # Dice of samples with the result from which confidence is high
    moderate: Annotated[float, Field(gt=0, le=1)] = 0.85  # and from which it is moderate

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.moderate > self.high:
            raise ValueError("moderate is larger than high")
        return self


class Acceleration(Part):
    """How a network is made faster; what comes of it has to agree with the plain float32 network."""

    engine: Literal["eager", "torchscript", "int8", "compile", "onnx", "tensorrt"] = "eager"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # autocast
    layout: Literal["channels_last", "default"] = "channels_last"  # of 3D convolutions in memory
    agreement: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Least Dice of each segment with the plain result, on every acceptance case; of numbers, 1 minus the largest difference."""


class Training(Part):
    """How a network was trained, as far as it decides how it may be run."""

    patch: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=3)]
    """Lengths of what it saw at once, in voxels of its input; one that normalises by instance is shown no other."""
