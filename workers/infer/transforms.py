"""Transforms that a bundle's configuration may name beside MONAI's: what SimpleITK does better to images of one channel each.

    {"_target_": "workers.infer.transforms.BiasCorrectiond", "keys": "image"}
    {"_target_": "workers.infer.transforms.Denoised", "keys": "image", "iterations": 5}

They change intensities only, never the grid, so that `Invertd` has nothing to undo. Both are deterministic.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from numpy.typing import NDArray

_Image = NDArray[np.float32]


class _Channelwise(MapTransform):
    """Applies `change` to each channel of (channels, i, j, k), a channel without any contrast excepted."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """As any dictionary transform of MONAI."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            spacing = _spacing(image)
            changed = [self._changed(np.asarray(channel, np.float32), spacing) for channel in image]
            result[key] = image.clone()
            result[key][...] = torch.from_numpy(np.stack(changed))
        return result

    def _changed(self, channel: _Image, spacing: list[float]) -> _Image:
        if channel.max() <= channel.min():
            return channel
        return self.change(channel, spacing)

    def change(self, channel: _Image, spacing: list[float]) -> _Image:
        """One channel with another; ``spacing`` in mm along its axes."""
        raise NotImplementedError


class BiasCorrectiond(_Channelwise):
    """N4 (Tustison et al. 2010): takes the uneven brightness of MR coils out, found on a grid ``shrink`` times coarser."""

    def __init__(
        self,
        keys: KeysCollection,
        shrink: int = 4,
        iterations: int = 30,
        levels: int = 3,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self._shrink, self._iterations = shrink, [iterations] * levels

    def change(self, channel: _Image, spacing: list[float]) -> _Image:
        """The channel divided by its field, which is 1 in the mean over the body."""
        sitk = _simpleitk()
        image = _wrapped(sitk, channel - channel.min(), spacing)
        small = sitk.Shrink(image, [min(self._shrink, max(length // 4, 1)) for length in image.GetSize()])
        body = sitk.OtsuThreshold(small, 0, 1, 200)
        correct = sitk.N4BiasFieldCorrectionImageFilter()
        correct.SetMaximumNumberOfIterations(self._iterations)
        correct.Execute(small, body)
        field = np.exp(sitk.GetArrayFromImage(correct.GetLogBiasFieldAsImage(image))).astype(np.float32)
        return np.asarray((channel - channel.min()) / np.maximum(field, 1e-3) + channel.min(), np.float32)


class Denoised(_Channelwise):
    """Curvature-driven diffusion (Perona and Malik 1990; Whitaker 1993): flat regions become smooth, edges stay."""

    def __init__(
        self, keys: KeysCollection, iterations: int = 5, conductance: float = 2.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self._iterations, self._conductance = iterations, conductance

    def change(self, channel: _Image, spacing: list[float]) -> _Image:
        """The channel after so many steps of diffusion."""
        sitk = _simpleitk()
        smooth = sitk.CurvatureAnisotropicDiffusion(
            _wrapped(sitk, channel, [1.0, 1.0, 1.0]),
            timeStep=0.0625,
            conductanceParameter=self._conductance,
            numberOfIterations=self._iterations,
        )
        return np.asarray(sitk.GetArrayFromImage(smooth), np.float32)


def _simpleitk() -> Any:
    sitk = import_module("SimpleITK")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return sitk


def _wrapped(sitk: Any, channel: _Image, spacing: list[float]) -> Any:
    image = sitk.GetImageFromArray(channel)
    image.SetSpacing(spacing[::-1])  # arrays are (z, y, x)
    return image


def _spacing(image: Any) -> list[float]:
    return [float(one) for one in image.pixdim] if isinstance(image, MetaTensor) else [1.0] * (image.ndim - 1)
