"""How much each voxel speaks for an answer: MONAI's Grad-CAM and occlusion, and two that follow the gradient.

Integrated gradients (Sundararajan et al. 2017) and gradient SHAP (Erion et al. 2021) are a few lines each; captum, which has
them too, would import matplotlib into every model's process. docs/adr/0021 compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.visualize.class_activation_maps import GradCAM, GradCAMpp
from monai.visualize.occlusion_sensitivity import OcclusionSensitivity
from numpy.typing import NDArray
from torch import Tensor

from gateway.bundle.explanation import Explanation
from workers.explain.subject import Painted, Subject

Map = NDArray[np.float32]  # (x, y, z) as the network sees the images; not below 0

NAMES = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "occlusion": "Occlusion sensitivity",
    "integrated_gradients": "Integrated gradients",
    "shap": "Gradient SHAP",
}


def saliency(subject: Subject, settings: Explanation) -> Map:
    """What speaks for the answer, by the manifest's method; what speaks against it is 0."""
    found = _METHODS[settings.method](subject, settings)
    return np.ascontiguousarray(np.maximum(found.detach().cpu().numpy(), 0), np.float32)


def _cam(kind: type[Any]) -> Callable[[Subject, Explanation], Tensor]:
    def method(subject: Subject, settings: Explanation) -> Tensor:
        inside = "network." if isinstance(subject.network, Painted) else ""
        cam = kind(subject.network, target_layers=inside + settings.layer, postprocessing=lambda values: values)
        found: Tensor = cam(subject.images, class_idx=subject.index)[0, 0]
        return found

    return method


def _occlusion(subject: Subject, settings: Explanation) -> Tensor:
    """The fall of the logit when a cube is hidden; cubes overlap by half."""
    sizes = [min(settings.mask, size) for size in subject.images.shape[2:]]
    hide = OcclusionSensitivity(
        subject.network, mask_size=sizes, n_batch=4, overlap=0.5, mode="mean_img", activate=False, verbose=False
    )
    with torch.no_grad():
        whole = float(subject.network(subject.images)[0, subject.index])
        hidden, _ = hide(subject.images)
    return torch.rsub(torch.as_tensor(hidden)[0, subject.index], whole)


def _integrated(subject: Subject, settings: Explanation) -> Tensor:
    """The gradient along the straight way from nothing to the images, by the midpoint rule, times what is on the way."""
    nothing = subject.without(settings.baseline)
    total = torch.zeros_like(subject.images)
    for step in range(settings.samples):
        total += subject.slope(nothing + (step + 0.5) / settings.samples * (subject.images - nothing))
    return (total / settings.samples * (subject.images - nothing)).sum(1)[0]


def _shap(subject: Subject, settings: Explanation) -> Tensor:
    """The mean over places on the ways from several kinds of nothing: expected gradients, an estimate of Shapley values."""
    random = np.random.default_rng(settings.seed)
    kinds = [subject.without(kind) for kind in ("minimum", "mean", "blur")]
    total = torch.zeros_like(subject.images)
    for number in range(settings.samples):
        nothing = kinds[number % len(kinds)]
        way = subject.images - nothing
        total += subject.slope(nothing + float(random.random()) * way) * way
    return (total / settings.samples).sum(1)[0]


_METHODS: dict[str, Callable[[Subject, Explanation], Tensor]] = {
    "gradcam": _cam(GradCAM),
    "gradcam++": _cam(GradCAMpp),
    "occlusion": _occlusion,
    "integrated_gradients": _integrated,
    "shap": _shap,
}
