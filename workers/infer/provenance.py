"""What decided a result beside the images and the bundle."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from gateway.domain.ids import digest
from gateway.domain.messages import JobOrder
from workers.infer.answer import Answer
from workers.infer.model import Model
from workers.infer.onnx_runtime import Exported, OnnxNetwork
from workers.load.volume import Volume

_LIBRARIES = ("torch", "monai", "numpy", "scipy", "pydicom", "highdicom")


def provenance(order: JobOrder, model: Model, volume: Volume) -> dict[str, str]:
    """Name -> text; the same job with the same provenance gives the same bytes on the same machine."""
    sampled, quick = model.manifest.uncertainty, model.manifest.acceleration
    return {
        "inputs": digest("inputs", *sorted(item.sha256 for item in order.inputs)),
        **{f"input {each.name}": each.said for each in volume.companions},
        **(
            {}
            if volume.outside is None
            else {"padding": f"{volume.outside.mean():.1%} of the voxels, where nothing is found"}
        ),
        "weights": " ".join(each.sha256 for each in model.manifest.weight_files),
        **_ensemble(model),
        "preprocessing": _names(model.preprocess),
        "postprocessing": _names(model.postprocess),
        "inferer": type(model.inferer).__name__,
        "device": str(model.device),
        "engine": "eager" if quick is None else quick.engine,
        "autocast": "" if quick is None or quick.precision == "float32" else quick.precision,
        "memory": ", ".join(model.notes),
        "precision": ", ".join(sorted({str(each.dtype).removeprefix("torch.") for each in model.network.parameters()})),
        "threads": str(torch.get_num_threads()),
        "seed": "" if sampled is None else str(sampled.seed),
        **libraries(),
        **({"onnxruntime": version("onnxruntime")} if _by_onnx(model) else {}),
    }


def _by_onnx(model: Model) -> bool:
    parts = (part for network in (model.network, *model.members) for part in network.modules())
    return any(isinstance(part, Exported | OnnxNetwork) for part in parts)


def libraries() -> dict[str, str]:
    """Versions of what computes."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def uncalibrated(answer: Answer, model: Model) -> dict[str, str]:
    """What the network said before its calibration; nothing where it has none."""
    if model.calibration is None:
        return {}
    return {
        "calibration": model.calibration.words,
        "raw_probabilities": ", ".join(f"{number:.6f}" for number in answer.raw),
    }


def _ensemble(model: Model) -> dict[str, str]:
    settings, files = model.manifest.ensemble, model.manifest.weight_files
    if settings is None:
        return {}
    shares = " ".join(f"{each.weight:g}" for each in files if each.weight is not None)
    return {"ensemble": f"{settings.combine}, weights {shares}" if shares else settings.combine}


def _names(transforms: object) -> str:
    return ", ".join(type(each).__name__ for each in getattr(transforms, "transforms", ()))
