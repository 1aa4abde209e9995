"""Weight files to a network, in the forms that hold numbers and no program of Python: whatever else is refused.

.safetensors         tensors, loaded into `network_def`
.onnx                a graph, run by ONNX Runtime in the place of `network_def`
.pt .pth .ckpt .bin  a state dict, read with weights_only=True; or TorchScript, run in the place of `network_def`
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import PurePath
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from gateway.domain.errors import BundleInvalid
from workers.infer.onnx_runtime import OnnxNetwork
from workers.infer.vote import RunningMean

PICKLED = (".pt", ".pth", ".ckpt", ".bin")
FORMS = (".safetensors", ".onnx", *PICKLED)


def with_weights(network: nn.Module | None, data: bytes, file: str) -> nn.Module:
    """``network`` with the weights, or the network that the file is.

    Raises BundleInvalid (`unsafe_weights`, `weights_form`, `no_onnxruntime`) for another form, for a file that holds more than
    numbers, and for weights of another network.
    """
    suffix = PurePath(file).suffix.lower()
    if suffix not in FORMS:
        raise BundleInvalid(
            f"weights in {suffix or 'a file without suffix'} are not read: save them as one of {', '.join(FORMS)}",
            code="weights_form",
        )
    if suffix == ".onnx":
        return OnnxNetwork(data, file)
    if suffix in PICKLED and is_torchscript(data):
        scripted: nn.Module = torch.jit.load(BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        return scripted
    if network is None:
        raise BundleInvalid(f"{file} holds weights only, and the configuration has no network_def", code="weights_form")
    network.load_state_dict(_tensors(data, file, suffix))
    return network


def is_torchscript(data: bytes) -> bool:
    """Whether a file is a TorchScript archive: one with code."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return any("/code/" in name for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


class MeanNetwork(nn.Module):
    """Several networks of one kind as one: the mean of their outputs (Lakshminarayanan et al. 2017), by ``shares`` if given."""

    def __init__(self, members: tuple[nn.Module, ...], shares: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shares = shares or (1.0,) * len(members)

    def forward(self, image: Tensor) -> Tensor:
        """One after the other, so that memory is that of one."""
        found: RunningMean[Tensor] = RunningMean()
        for member, share in zip(self.members, self.shares, strict=True):
            found.add(member(image), share)
        return found.value


def _tensors(data: bytes, file: str, suffix: str) -> dict[str, Tensor]:
    if suffix == ".safetensors":
        from safetensors.torch import load

        state: dict[str, Tensor] = load(data)
        return state
    try:
        loaded: dict[str, Tensor] = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise BundleInvalid(
            f"{file} holds more than tensors, so it is not read: save a state dict, or safetensors ({_first(error)})",
            code="unsafe_weights",
        ) from None
    return loaded


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120]
