"""A volume through the bundle of a detection: boxes in the patient's millimetres."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.box_utils import batched_nms, convert_box_to_standard_mode
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor, nn

from gateway.bundle.output import BoxSpec, Output
from gateway.domain.errors import ModelOutputInvalid
from workers.infer.model import Model
from workers.infer.predict import LPS_TO_RAS, check_placed, prepared, slices_of
from workers.infer.upright import straighten
from workers.load.places import Box
from workers.load.volume import Volume

_KEYS = (("box", "label", "label_scores"), ("boxes", "labels", "scores"))  # MONAI's names, torchvision's
_LONGEST = 100_000  # boxes before thresholds


def detect(model: Model, volume: Volume) -> tuple[Box, ...]:
    """Every box that counts by the manifest's thresholds, the best first; none is an answer too.

    Boxes of a class that overlap more than the manifest allows are one thing: the better stays. Raises ModelOutputInvalid for
    boxes that are no numbers, turned inside out, of a class that the manifest does not know, or around a place outside of the
    images (coordinates of another convention would be).
    """
    output, settings = model.manifest.output, _settings(model.manifest.output)
    upright = None if settings.planar else straighten(volume)
    seen = volume if upright is None else upright.volume
    found: list[Box] = []
    with torch.inference_mode():
        data = prepared(model, seen)
        for number, image in _inputs(data["image"], settings):
            answer = _answer(model, data, image)
            boxes, labels, scores = _kept(*_read(answer, output), output)
            found.extend(_placed(boxes, labels, scores, data["image"], settings, number, volume))
    for box in found:
        _check_inside(box, volume)
    return tuple(sorted(found, key=lambda box: (-box.score, box.label, *box.centre.round(3).tolist())))


def _settings(output: Output) -> BoxSpec:
    assert output.boxes is not None  # noqa: S101
    return output.boxes


def _inputs(image: Tensor, settings: BoxSpec) -> Iterator[tuple[int | None, Tensor]]:
    """What the network sees, (channels, ...): the volume, or one image after the other with its number."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    if not settings.planar:
        yield None, plain
        return
    for number in range(plain.shape[1]):
        yield number, plain[:, number]


def _answer(model: Model, data: Mapping[str, Any], image: Tensor) -> Mapping[str, Any]:
    """Boxes, labels and scores after the bundle's postprocessing."""
    for part in vars(model.inferer).values():  # a detector around the network has a training mode of its own
        if isinstance(part, nn.Module):
            part.eval()
    answers: Any = model.inferer(inputs=image[None].to(model.device), network=model.network)
    answer = answers[0] if isinstance(answers, Sequence) and len(answers) == 1 else answers
    if not isinstance(answer, Mapping):
        raise ModelOutputInvalid("the model's output is not the boxes of one image", code="output_shape")
    plain = {key: value.detach().cpu() for key, value in answer.items() if isinstance(value, Tensor)}
    return model.postprocess({**data, **plain, "pred": plain})


def _read(answer: Mapping[str, Any], output: Output) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes, numbers of the mode), (boxes,) and (boxes,) as they came, checked."""
    keys = next((keys for keys in _KEYS if all(key in answer for key in keys)), None)
    if keys is None:
        raise ModelOutputInvalid("the model's output lacks box, label or label_scores", code="output_shape")
    boxes, labels, scores = (torch.as_tensor(np.asarray(answer[key]), dtype=torch.float64) for key in keys)
    width = len(_settings(output).mode)
    boxes, labels, scores = boxes.reshape(-1, width), labels.reshape(-1), scores.reshape(-1)
    if not len(boxes) == len(labels) == len(scores) <= _LONGEST:
        raise ModelOutputInvalid("the model gives not one label and score for each box", code="output_shape")
    if not (boxes.isfinite().all() and labels.isfinite().all() and scores.isfinite().all()):
        raise ModelOutputInvalid("the model's output holds values that are not finite", code="output_not_finite")
    if len(boxes) and (scores.min() < 0 or scores.max() > 1):
        raise ModelOutputInvalid("the model's scores are not from 0 to 1", code="output_values")
    if len(labels) and (labels.min() < 0 or labels.max() >= len(output.findings) or (labels != labels.round()).any()):
        raise ModelOutputInvalid("a box has a class that the manifest does not know", code="output_values")
    return boxes, labels.long(), scores


def _kept(boxes: Tensor, labels: Tensor, scores: Tensor, output: Output) -> tuple[Tensor, Tensor, Tensor]:
    """Those of enough certainty, in MONAI's standard mode (all lowest corners, then all highest), without doubles."""
    settings = _settings(output)
    least = torch.tensor(
        [settings.score if one.threshold is None else one.threshold for one in output.findings], dtype=scores.dtype
    )
    enough = scores >= least[labels]
    boxes, labels, scores = boxes[enough], labels[enough], scores[enough]
    if not len(boxes):
        return boxes, labels, scores
    corners = torch.as_tensor(convert_box_to_standard_mode(boxes, mode=settings.mode))
    low, high = corners.chunk(2, dim=1)
    if bool((low >= high).any()):
        raise ModelOutputInvalid("a box is turned inside out or has no size", code="output_values")
    stay = batched_nms(corners, scores, labels, nms_thresh=settings.overlap)
    return corners[stay], labels[stay], scores[stay]


def _placed(
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor,
    image: Tensor,
    settings: BoxSpec,
    number: int | None,
    volume: Volume,
) -> Iterator[Box]:
    """Boxes in LPS millimetres; one on an image is as deep as the way to the next."""
    affine = _affine(image, settings, volume)
    for corners, label, score in zip(boxes.numpy(), labels.tolist(), scores.tolist(), strict=True):
        low, high = np.split(np.asarray(corners, np.float64), 2)
        if settings.coordinates == "index" and settings.whole_numbers == "edges":
            low, high = low - 0.5, high - 0.5
        where = None if number is None else slices_of(image, volume)[number]
        if number is not None:
            low, high = np.array([number - 0.5, *low]), np.array([number + 0.5, *high])
        corner = affine[:3, :3] @ low + affine[:3, 3]
        edges = affine[:3, :3].T * (high - low)[:, None]
        if where is not None:  # of an uneven stack the image lies elsewhere than its number says
            corner = corner + (volume.levels[where] - where) * volume.affine[:3, 0]
        yield Box(corner=corner, edges=edges, label=label, score=score, slice=where)


def _affine(image: Tensor, settings: BoxSpec, volume: Volume) -> NDArray[np.float64]:
    """Takes the model's coordinates to LPS millimetres."""
    if settings.coordinates == "lps":
        return np.eye(4)
    if settings.coordinates == "ras":
        return LPS_TO_RAS
    if isinstance(image, MetaTensor):
        check_placed(image, volume)
        result: NDArray[np.float64] = LPS_TO_RAS @ np.asarray(image.affine, np.float64)
        return result
    return volume.affine


def _check_inside(box: Box, volume: Volume) -> None:
    index = (np.linalg.inv(volume.affine) @ [*box.centre, 1.0])[:3]
    if (index < -0.5).any() or (index > [volume.levels[-1] + 0.5, *np.array(volume.voxels.shape[1:]) - 0.5]).any():
        raise ModelOutputInvalid(
            "a box lies outside of the images: does the manifest name the right coordinates?", code="output_boxes"
        )
