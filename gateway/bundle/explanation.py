"""What a manifest asks about a model's reasons and about its probabilities. Documented in docs/explanation.md."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.bundle.part import Part

_Share = Annotated[float, Field(ge=0, le=1)]


class Calibration(Part):
    """Where the numbers lie that make probabilities of a network's logits, and what counts as sure."""

    file: Annotated[str, Field(min_length=1)]  # relative to the bundle; made by `hilum models calibrate`
    high: Annotated[float, Field(gt=0.5, le=1)] = 0.95  # chance that the answer is right, from which confidence is high
    moderate: Annotated[float, Field(ge=0.5, le=1)] = 0.8  # and from which it is moderate

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.moderate > self.high:
            raise ValueError("moderate is larger than high")
        return self


class Faithfulness(Part):
    """What a map must prove before anybody sees it."""

    steps: Annotated[int, Field(ge=4, le=64)] = 8  # images between the whole one and one with nothing left
    blocks: Annotated[int, Field(ge=2, le=32)] = 8  # along each axis: what is taken out at once
    orders: Annotated[int, Field(ge=1, le=50)] = 3  # random orders to be better than
    networks: Annotated[int, Field(ge=1, le=20)] = 2  # networks with random weights to differ from
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05  # least gain over random order, in area under the curve
    alike: _Share = 0.5  # most that maps of random networks may be like this one: rank correlation, SSIM


class Explanation(Part):
    """Why a model says what it says, as a map over the images."""

    method: Literal["gradcam", "gradcam++", "occlusion", "integrated_gradients", "shap"]
    layer: str = ""  # of Grad-CAM: name of the module whose features are weighed
    of: Annotated[int, Field(ge=1)] | None = (
        None  # finding or segment, from 1; else the likeliest finding, the first segment
    )
    baseline: Literal["minimum", "mean", "blur"] = "blur"  # what stands where something is taken out
    samples: Annotated[int, Field(ge=2, le=500)] = 20  # steps of integrated gradients, samples of shap
    mask: Annotated[int, Field(ge=1, le=128)] = 8  # voxels that occlusion hides at once, along each axis
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    faithfulness: Faithfulness = Faithfulness()

    @model_validator(mode="after")
    def _has_its_layer(self) -> Self:
        if self.method.startswith("gradcam") != bool(self.layer):
            raise ValueError("layer is for gradcam and gradcam++, which need it")
        return self
