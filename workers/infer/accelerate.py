"""A network made faster as its manifest says, beside the plain one that it has to agree with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gateway.bundle.network import Acceleration
from gateway.domain.errors import BundleInvalid
from workers.infer import onnx_runtime
from workers.infer.onnx_runtime import Exported, OnnxNetwork

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_ANY_PRECISION = ("eager", "torchscript")


def accelerated(network: nn.Module, wanted: Acceleration | None, device: torch.device) -> nn.Module:
    """The network that is run; the same one where nothing is wanted. Raises BundleInvalid for what cannot be had here."""
    if wanted is None or (wanted.engine, wanted.precision) == ("eager", "float32"):
        return network
    if any(isinstance(module, OnnxNetwork) for module in network.modules()):
        raise _unusable(
            f"engine: {wanted.engine}, precision: {wanted.precision}",
            "the weights are an ONNX graph, which ONNX Runtime runs as it is",
        )
    if wanted.precision != "float32" and wanted.engine not in _ANY_PRECISION:
        raise _unusable(f"precision: {wanted.precision}", f"engine: {wanted.engine} has a precision of its own")
    engine = _ENGINES[wanted.engine](network, device)
    if wanted.precision == "float32":
        return engine
    if wanted.precision == "float16" and device.type == "cpu":
        raise _unusable("precision: float16", "a processor computes it slower than float32; use bfloat16")
    return _Autocast(engine, device, _TYPES[wanted.precision])


class _Autocast(nn.Module):
    """Runs in a narrower type; what comes out is float32 again, so that nothing after it needs to know."""

    def __init__(self, network: nn.Module, device: torch.device, kind: torch.dtype) -> None:
        super().__init__()
        self.network, self._device, self._kind = network, device.type, kind

    def forward(self, *inputs: Tensor) -> Any:
        """As the network."""
        with torch.autocast(self._device, dtype=self._kind):
            output = self.network(*inputs)
        return output.float() if isinstance(output, Tensor) else output


class _Traced(nn.Module):
    """TorchScript, traced for each shape that comes, frozen and fused."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._compiled: dict[tuple[int, ...], Any] = {}

    def forward(self, image: Tensor) -> Any:
        """As the network, which must take one tensor and give one."""
        shape = tuple(image.shape)
        if shape not in self._compiled:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch points to torch.compile, which cannot run in the sandbox
                traced = torch.jit.trace(self.network, image, check_trace=False)  # type: ignore[no-untyped-call]
                self._compiled[shape] = torch.jit.freeze(traced)
        return self._compiled[shape](image)


def _eager(network: nn.Module, _: torch.device) -> nn.Module:
    return network


def _torchscript(network: nn.Module, _: torch.device) -> nn.Module:
    return _Traced(network)


def _int8(network: nn.Module, device: torch.device) -> nn.Module:
    """Weights of linear layers as int8, activations quantised as they come (dynamic quantisation)."""
    if device.type != "cpu":
        raise _unusable("engine: int8", "dynamic quantisation is for processors")
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise _unusable("engine: int8", "the weights are TorchScript, whose layers cannot be replaced any more")
    if not any(isinstance(module, nn.Linear) for module in network.modules()):
        raise _unusable("engine: int8", "the network has no linear layer, and int8 makes convolutions slower")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch points to torchao, which would be one more package for the same
        quantised: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            network, {nn.Linear}, dtype=torch.qint8
        )
    return quantised


def _compile(_: nn.Module, __: torch.device) -> nn.Module:
    raise _unusable(
        "engine: compile", "torch.compile starts a compiler, which a model's process may not; use torchscript"
    )


def _onnx(network: nn.Module, device: torch.device) -> nn.Module:
    if not onnx_runtime.available(onnx_runtime.CPU):
        raise _unusable("engine: onnx", "ONNX Runtime is not installed: pip install 'hilum[onnx]'")
    if device.type == "cpu":
        return Exported(network, onnx_runtime.CPU)
    if device.type != "cuda" or not onnx_runtime.available(onnx_runtime.CUDA):
        raise _unusable("engine: onnx", f"ONNX Runtime is installed without {device.type}")
    return Exported(network, onnx_runtime.CUDA)


def _tensorrt(network: nn.Module, device: torch.device) -> nn.Module:
    """Through ONNX Runtime, which builds TensorRT's engines itself."""
    if device.type != "cuda" or not onnx_runtime.available(onnx_runtime.TENSORRT):
        raise _unusable("engine: tensorrt", "TensorRT is not installed, and needs an NVIDIA device; use torchscript")
    return Exported(network, onnx_runtime.TENSORRT)


_ENGINES: dict[str, Callable[[nn.Module, torch.device], nn.Module]] = {
    "eager": _eager,
    "torchscript": _torchscript,
    "int8": _int8,
    "compile": _compile,
    "onnx": _onnx,
    "tensorrt": _tensorrt,
}


def _unusable(what: str, why: str) -> BundleInvalid:
    return BundleInvalid(f"acceleration.{what} cannot be used here: {why}", code="acceleration")
