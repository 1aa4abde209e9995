"""What a model answers, whatever kind of answer it gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workers.infer.detect import detect
from workers.infer.model import Model
from workers.infer.predict import infer, infer_each, infer_raw_and_calibrated
from workers.load.masks import Labels
from workers.load.places import Box
from workers.load.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What there is of it depends on `output.kind` and `output.scope`; nothing is measured yet."""

    labels: Labels  # on the volume's grid; nothing painted where the model paints nothing
    boxes: tuple[Box, ...] = ()  # of a detection, the best first
    numbers: tuple[float, ...] = ()  # about all images; calibrated, where the bundle has a calibration
    raw: tuple[float, ...] = ()  # the same as the network gives them
    each: tuple[tuple[float, ...], ...] = ()  # about each slice


def ask(model: Model, volume: Volume) -> Answer:
    """Runs the bundle; raises ModelOutputInvalid for an answer that the manifest does not promise."""
    output = model.manifest.output
    if output.kind == "segmentation":
        return Answer(labels=infer(model, volume))
    nothing = np.zeros(volume.voxels.shape, np.uint8)
    if output.kind == "detection":
        return Answer(labels=nothing, boxes=detect(model, volume))
    if output.scope == "image":
        return Answer(labels=nothing, each=infer_each(model, volume))
    found = infer_raw_and_calibrated(model, volume)
    return Answer(labels=nothing, numbers=found.values, raw=found.raw)
