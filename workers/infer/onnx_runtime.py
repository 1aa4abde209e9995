"""Networks as ONNX graphs, run by ONNX Runtime: one that is given, or one exported from PyTorch for each shape that comes."""

from __future__ import annotations

import warnings
from importlib import import_module
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from gateway.domain.errors import BundleInvalid
from workers.infer.forward import is_out_of_memory

CPU = ("CPUExecutionProvider",)
CUDA = ("CUDAExecutionProvider", *CPU)
TENSORRT = ("TensorrtExecutionProvider", *CUDA)


def available(providers: tuple[str, ...]) -> bool:
    """Whether ONNX Runtime is installed, and with the first of these."""
    try:
        return providers[0] in import_module("onnxruntime").get_available_providers()
    except ModuleNotFoundError:
        return False


class OnnxNetwork(nn.Module):
    """An ONNX graph of one input and one output; raises BundleInvalid (`no_onnxruntime`, `weights_form`)."""

    def __init__(self, data: bytes, file: str, providers: tuple[str, ...] = CPU) -> None:
        super().__init__()
        try:
            runtime: Any = import_module("onnxruntime")
        except ModuleNotFoundError:
            raise BundleInvalid(
                f"{file} needs ONNX Runtime, which is not installed: pip install 'hilum[onnx]'", code="no_onnxruntime"
            ) from None
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the processor
        self._session = runtime.InferenceSession(data, options, providers=list(providers))
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if (len(inputs), len(outputs)) != (1, 1):
            raise BundleInvalid(
                f"{file} takes {len(inputs)} inputs and gives {len(outputs)} outputs, not one each", code="weights_form"
            )
        self._input = inputs[0].name

    def forward(self, image: Tensor) -> Tensor:
        """As the graph was exported; raises MemoryError."""
        try:
            (output,) = self._session.run(None, {self._input: image.detach().cpu().contiguous().numpy()})
        except Exception as error:
            if is_out_of_memory(error):  # told by an exception of its own kind
                raise MemoryError("ONNX Runtime ran out of memory") from None
            raise
        return torch.from_numpy(output).to(image.device)


class Exported(nn.Module):
    """A network of PyTorch as graphs, exported for each shape that comes: constants fold, and nothing is left to shapes."""

    def __init__(self, network: nn.Module, providers: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self._providers = network, providers
        self._graphs: dict[tuple[int, ...], OnnxNetwork] = {}

    def forward(self, image: Tensor) -> Tensor:
        """As the network, which must take one tensor and give one; raises BundleInvalid where ONNX has no words for it."""
        shape = tuple(image.shape)
        if shape not in self._graphs:
            self._graphs[shape] = OnnxNetwork(self._export(image), "engine: onnx", self._providers)
        found: Tensor = self._graphs[shape](image)
        return found

    def _export(self, image: Tensor) -> bytes:
        graph = BytesIO()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter by torch.export would need one more package, onnxscript
                torch.onnx.export(self.network, (image,), graph, dynamo=False)  # type: ignore[arg-type] # takes one
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            if is_out_of_memory(error):  # it runs the network once
                raise
            why = (str(error).splitlines() or [""])[0][:120]
            raise BundleInvalid(
                f"acceleration.engine: onnx cannot be used: the network cannot be exported ({why})", code="acceleration"
            ) from None
        return graph.getvalue()
