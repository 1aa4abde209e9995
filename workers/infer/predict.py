"""A volume through an opened bundle: labels on the volume's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from gateway.domain.errors import ModelOutputInvalid
from workers.infer.model import Model
from workers.load.volume import Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def infer(model: Model, volume: Volume) -> NDArray[np.uint8]:
    """Runs the bundle and returns one label for each voxel: (slices, rows, columns), 0 is background.

    Raises ModelOutputInvalid where the output is not finite, has another shape than the volume, or holds a value that
    is no segment of the manifest. The model's own exceptions pass through.
    """
    with torch.inference_mode():
        data = model.preprocess({"image": _image(volume)})
        # The network sees no geometry: a plain tensor, in the layout its weights have.
        batch = _layout(data["image"].as_tensor()[None].to(model.device))
        output = model.inferer(inputs=batch, network=model.network)
        data["pred"] = MetaTensor(_checked(output)[0].cpu(), meta=data["image"].meta)
        return _labels(model.postprocess(data)["pred"], volume, len(model.manifest.output.segments))


def _image(volume: Volume) -> MetaTensor:
    """One channel, axes (slice, row, column) as they are: MONAI's affine goes from index to RAS, whatever the axes."""
    voxels = torch.from_numpy(np.ascontiguousarray(volume.voxels))[None]
    affine = torch.from_numpy(LPS_TO_RAS @ volume.affine)
    return MetaTensor(voxels, affine=affine, meta={"original_channel_dim": 0, "spatial_shape": volume.voxels.shape})


def _layout(batch: Tensor) -> Tensor:
    return batch.to(memory_format=torch.channels_last_3d) if batch.dim() == 5 else batch


def _checked(output: Any) -> Tensor:
    """Before any threshold, which would turn what is not a number into background."""
    if not isinstance(output, Tensor) or output.dim() < 4 or output.shape[0] != 1:
        raise ModelOutputInvalid("the model's output is not one volume", code="output_shape")
    if not torch.isfinite(output).all():
        raise ModelOutputInvalid("the model's output holds values that are not finite", code="output_not_finite")
    return output


def _labels(prediction: Any, volume: Volume, segments: int) -> NDArray[np.uint8]:
    values = np.asarray(prediction.as_tensor() if isinstance(prediction, MetaTensor) else prediction)
    if values.shape != (1, *volume.voxels.shape):
        raise ModelOutputInvalid(
            f"the model's labels have the shape {_by(values.shape[1:])}, the images {_by(volume.voxels.shape)}",
            code="output_shape",
        )
    if not np.isfinite(values).all():
        raise ModelOutputInvalid("the model's labels hold values that are not finite", code="output_not_finite")
    found = np.unique(values)
    if found.min() < 0 or found.max() > segments or not np.array_equal(found, found.round()):
        raise ModelOutputInvalid(f"the model's labels are not whole numbers from 0 to {segments}", code="output_values")
    return np.ascontiguousarray(values[0].astype(np.uint8))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
