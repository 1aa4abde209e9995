"""A volume through an opened bundle: labels on the volume's own grid."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import AsDiscreted
from numpy.typing import NDArray
from torch import Tensor

from gateway.bundle.output import Output
from gateway.domain.errors import InputRefused, ModelOutputInvalid
from workers.infer.calibration import probabilities
from workers.infer.forward import forward
from workers.infer.model import Model
from workers.infer.regrid import regrid, same_grid
from workers.infer.upright import straighten
from workers.infer.vote import majority, staple
from workers.infer.windows import check_patch
from workers.load.masks import Labels
from workers.load.volume import Volume

_CODE = re.compile("[a-z][a-z0-9_]{0,31}")
_HALF, _ROUNDED = 0.5, 1e-3

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def infer(model: Model, volume: Volume) -> Labels:
    """Runs the bundle and returns labels on the volume's grid, as `workers.load.masks` has them.

    A stack that a tilted gantry sheared is set upright for the model. Labels on a grid of the model's own (cropped, resampled,
    turned) come back by their affine. Raises ModelOutputInvalid where the output is not finite, lies on no grid that meets
    the volume's, or holds a value that is no segment of the manifest. The model's own exceptions pass through.
    An ensemble that votes is asked member by member. Where the images are padded nothing was measured, so nothing is found.
    """
    labels = _infer_everywhere(model, volume)
    if volume.outside is not None:
        labels[..., volume.outside] = 0
    return labels


def _infer_everywhere(model: Model, volume: Volume) -> Labels:
    ensemble = model.manifest.ensemble
    if model.members and ensemble is not None and ensemble.combine != "mean":
        answers = [_infer_everywhere(one, volume) for one in model.alone()]
        return staple(answers) if ensemble.combine == "staple" else majority(answers, model.manifest.shares)
    upright = straighten(volume)
    if upright is None:
        return _infer(model, volume)
    return np.ascontiguousarray(upright.back(_infer(model, upright.volume)), np.uint8)


Probabilities = NDArray[np.float32]
"""(segments, slices, rows, columns), each from 0 to 1; what is left to 1 is background's."""


def infer_with_probabilities(model: Model, volume: Volume) -> tuple[Labels, Probabilities | None]:
    """Labels as `infer` gives them, and the probabilities that they were made of, on the same grid.

    None where the bundle does not give any: its postprocessing must bring probabilities back onto the images and decide by
    `AsDiscreted` afterwards, at the largest or at 0.5. An ensemble that votes has none either.
    """
    softer = undecided(model.postprocess)
    if softer is None or (model.members and model.manifest.ensemble and model.manifest.ensemble.combine != "mean"):
        return infer(model, volume), None
    upright = straighten(volume)
    given, output = volume if upright is None else upright.volume, model.manifest.output
    with torch.inference_mode():
        data, batch = prepare(model, given)
        found = _checked(_output(model, batch), 4)
        labels = _labels(_finished(model, data, found), given, output)
        chances = _probabilities(_finished(replace(model, postprocess=softer), data, found), given, output)
    if upright is not None:
        labels = np.ascontiguousarray(upright.back(labels), np.uint8)
        chances = None if chances is None else np.ascontiguousarray(upright.back(chances), np.float32)
    for values in (labels, chances):
        if values is not None and volume.outside is not None:
            values[..., volume.outside] = 0
    return labels, chances


def undecided(postprocess: object) -> Compose | None:
    """The transforms before the one that decides; None where nothing decides, or not at the largest or at one half."""
    before: list[Any] = []
    for each in getattr(postprocess, "transforms", ()):
        if isinstance(each, AsDiscreted):
            at = each.threshold[0]
            return Compose(before) if each.argmax[0] or (at is not None and float(at) == _HALF) else None
        before.append(each)
    return None


def _probabilities(prediction: Any, volume: Volume, output: Output) -> Probabilities | None:
    """Of each segment; None for numbers that are no probabilities, or not of the manifest's segments and background."""
    count, found = len(output.segments), len(prediction)
    if found not in (count, count + 1):
        return None
    values = _on_grid(prediction, volume, found, order=1)[found - count :]
    if not np.isfinite(values).all() or values.min() < -_ROUNDED or values.max() > 1 + _ROUNDED:
        return None
    return np.ascontiguousarray(np.clip(values, 0, 1), np.float32)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a classification or regression says."""

    values: tuple[float, ...]  # calibrated, where the bundle has a calibration
    raw: tuple[float, ...]  # as the network gives them
    logits: tuple[float, ...] = ()  # what it puts out before the bundle's postprocessing


def infer_numbers(model: Model, volume: Volume) -> tuple[float, ...]:
    """Runs the bundle of a classification or regression and returns its numbers, as many as the manifest names."""
    return infer_raw_and_calibrated(model, volume).values


def infer_raw_and_calibrated(model: Model, volume: Volume) -> Numbers:
    """The numbers as results say them, and as the network gives them.

    Raises ModelOutputInvalid where they are not finite, not as many, or probabilities outside of 0 to 1.
    """
    upright = straighten(volume)
    with torch.inference_mode():
        data, batch = prepare(model, volume if upright is None else upright.volume)
        output = _checked(_output(model, batch), 1)
        raw = _numbers(_finished(model, data, output), model.manifest.output)
        logits = tuple(output.double().cpu().reshape(-1).tolist())
        if model.calibration is None:
            return Numbers(values=raw, raw=raw, logits=logits)
        check_logits(logits, raw, model)
        scaled = torch.from_numpy(model.calibration.apply(output.double().cpu().numpy())).to(output.dtype)
        return Numbers(values=_numbers(_finished(model, data, scaled), model.manifest.output), raw=raw, logits=logits)


def check_logits(logits: tuple[float, ...], raw: tuple[float, ...], model: Model) -> None:
    """Raises ModelOutputInvalid where softmax or sigmoids of the network's output are not what the bundle makes of it."""
    exclusive = model.manifest.output.exclusive
    if len(logits) != len(raw) or not np.allclose(probabilities(np.array(logits), exclusive), raw, atol=1e-3):
        way = "a softmax (`exclusive: true`)" if exclusive else "sigmoids (`exclusive: false`)"
        raise ModelOutputInvalid(
            f"the model's probabilities are not {way} of the network's output, so they cannot be calibrated or explained",
            code="no_logits",
        )


def _numbers(prediction: Any, output: Output) -> tuple[float, ...]:
    numbers = np.asarray(prediction.as_tensor() if isinstance(prediction, MetaTensor) else prediction, np.float64)
    if numbers.size != len(output.findings) + len(output.values):
        raise ModelOutputInvalid(
            f"the model gives {numbers.size} numbers, its manifest says how many", code="output_shape"
        )
    if not np.isfinite(numbers).all():
        raise ModelOutputInvalid("the model's output holds values that are not finite", code="output_not_finite")
    if output.findings and (numbers.min() < 0 or numbers.max() > 1):
        raise ModelOutputInvalid("the model's probabilities are not from 0 to 1", code="output_values")
    return tuple(numbers.reshape(-1).tolist())


def infer_each(model: Model, volume: Volume) -> tuple[tuple[float, ...], ...]:
    """The same for a model that sees one image at a time, (1, rows, columns): its numbers for each slice, in their order.

    Raises ModelOutputInvalid as `infer_numbers` does, and where preprocessing changes how many slices there are.
    """
    output = model.manifest.output
    with torch.inference_mode():
        data = prepared(model, volume)
        images = data["image"]
        answers = [_one(model, data, images[:, number]) for number in range(images.shape[1])]
    of_slice = dict(zip(slices_of(images, volume), answers, strict=True))
    if sorted(of_slice) != list(range(len(volume.voxels))):
        raise ModelOutputInvalid("preprocessing changed which images there are", code="output_shape")
    return tuple(_numbers(of_slice[index], output) for index in sorted(of_slice))


def slices_of(images: Any, volume: Volume) -> list[int]:
    """For each image of (channels, images, rows, columns) the index of its slice in the volume, by geometry.

    Preprocessing may turn a stack upside down, or crop it.
    """
    if not isinstance(images, MetaTensor):
        return list(range(images.shape[1]))
    to_volume = np.linalg.inv(volume.affine) @ LPS_TO_RAS @ np.asarray(images.affine, np.float64)
    middle = (np.array(images.shape[2:]) - 1) / 2
    return [round(float((to_volume @ [number, *middle, 1.0])[0])) for number in range(images.shape[1])]


def _one(model: Model, data: Any, image: Any) -> Any:
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    batch = plain[None].to(model.device)
    check_patch(model.network, model.inferer, model.manifest, batch.shape)
    answer = _checked(model.inferer(inputs=batch, network=model.network), 1)[0].cpu()
    return model.postprocess({**data, "image": image, "pred": MetaTensor(answer)})["pred"]


def _infer(model: Model, volume: Volume) -> Labels:
    return _labels(_predict(model, volume, axes=4), volume, model.manifest.output)


def _predict(model: Model, volume: Volume, *, axes: int) -> Any:
    """`pred` after the bundle's postprocessing; of at least so many axes when it leaves the network, batch included."""
    with torch.inference_mode():
        data, batch = prepare(model, volume)
        return _finished(model, data, _checked(_output(model, batch), axes))


def prepare(model: Model, volume: Volume) -> tuple[dict[str, Any], Tensor]:
    """What the bundle's preprocessing gives, and its image as a batch of one.

    The network sees no geometry: a plain tensor, in the layout its weights have.
    """
    data = prepared(model, volume)
    return data, _layout(data["image"].as_tensor()[None].to(model.device))


def _output(model: Model, batch: Tensor) -> Any:
    """What the network gives."""
    plain = (model.plain or model).network
    check_patch(plain, model.inferer, model.manifest, batch.shape)
    model.notes.clear()
    return forward(model.inferer, model.network, batch, model.notes.append, plain)


def _finished(model: Model, data: dict[str, Any], output: Tensor) -> Any:
    """`pred` as the bundle's postprocessing makes it of the network's output."""
    pred = MetaTensor(output[0].cpu(), meta=data["image"].meta)
    return model.postprocess({**data, "pred": pred})["pred"]


def prepared(model: Model, volume: Volume) -> dict[str, Any]:
    """What the bundle's preprocessing makes of the images; its transforms may refuse them by InputRefused."""
    try:
        return model.preprocess({"image": image_of(volume)})
    except RuntimeError as error:  # how MONAI wraps what a transform raises
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputRefused):
            cause = cause.__cause__
        if cause is None:
            raise
        code = cause.code if _CODE.fullmatch(cause.code) else "refused_by_model"
        raise InputRefused(cause.message[:200], code=code) from error


def image_of(volume: Volume) -> MetaTensor:
    """A channel for each input, axes (slice, row, column) as they are: MONAI's affine goes from index to RAS, whatever the axes."""
    channels = [volume.voxels, *(each.voxels for each in volume.companions)]
    voxels = torch.from_numpy(np.stack(channels) if volume.companions else np.ascontiguousarray(volume.voxels)[None])
    affine = torch.from_numpy(LPS_TO_RAS @ volume.affine)
    return MetaTensor(voxels, affine=affine, meta={"original_channel_dim": 0, "spatial_shape": volume.voxels.shape})


def _layout(batch: Tensor) -> Tensor:
    return batch.to(memory_format=torch.channels_last_3d) if batch.dim() == 5 else batch


def _checked(output: Any, axes: int) -> Tensor:
    """Before any threshold, which would turn what is not a number into background."""
    if not isinstance(output, Tensor) or output.dim() < axes or output.shape[0] != 1:
        raise ModelOutputInvalid("the model's output is not that of one volume", code="output_shape")
    if not torch.isfinite(output).all():
        raise ModelOutputInvalid("the model's output holds values that are not finite", code="output_not_finite")
    return output


def _labels(prediction: Any, volume: Volume, output: Output) -> Labels:
    values = _on_grid(prediction, volume, len(output.segments) if output.overlapping else 1)
    if not np.isfinite(values).all():
        raise ModelOutputInvalid("the model's labels hold values that are not finite", code="output_not_finite")
    found, most = np.unique(values), 1 if output.overlapping else len(output.segments)
    if found.min() < 0 or found.max() > most or not np.array_equal(found, found.round()):
        raise ModelOutputInvalid(f"the model's labels are not whole numbers from 0 to {most}", code="output_values")
    return np.ascontiguousarray(values if output.overlapping else values[0], np.uint8)


def _on_grid(prediction: Any, volume: Volume, channels: int, order: int = 0) -> NDArray[np.generic]:
    """(channels, slices, rows, columns) on the volume's grid, wherever the prediction says that it lies."""
    values = np.asarray(prediction.as_tensor() if isinstance(prediction, MetaTensor) else prediction)
    if values.ndim != 4 or len(values) != channels:
        raise ModelOutputInvalid(
            f"the model's labels have the shape {_by(values.shape)}, not {channels} x the images' "
            f"{_by(volume.voxels.shape)}",
            code="output_shape",
        )
    affine = volume.affine
    if isinstance(prediction, MetaTensor):
        affine = LPS_TO_RAS @ np.asarray(prediction.affine, np.float64)
        check_placed(prediction, volume)
    if not same_grid(affine, volume.affine, volume.voxels.shape):
        return regrid(values, affine, volume.affine, volume.voxels.shape, order)
    if values.shape[1:] != volume.voxels.shape:
        raise ModelOutputInvalid(
            f"the model's labels have the shape {_by(values.shape[1:])}, the images {_by(volume.voxels.shape)}",
            code="output_shape",
        )
    return values


def check_placed(tensor: MetaTensor, volume: Volume) -> None:
    """Raises ModelOutputInvalid (`output_grid`) for a tensor with the affine that MONAI gives to one without any: the identity.

    Some transform of the bundle has lost where it lies. Taken at its word it would lie a millimetre a voxel around the origin.
    """
    if np.array_equal(tensor.affine, np.eye(4)) and not np.allclose(LPS_TO_RAS @ volume.affine, np.eye(4), atol=1e-6):
        raise ModelOutputInvalid(
            "the bundle's transforms lose where images lie: what they give has the identity as its affine",
            code="output_grid",
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
