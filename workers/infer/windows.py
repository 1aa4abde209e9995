"""What a network sees at once: windows as it was trained on, and as many together as there is memory for."""

from __future__ import annotations

import copy
import math
import resource
import weakref
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from monai.inferers.inferer import Inferer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid
from workers.memory import MIB, free_mib

_SHARE = 0.8  # of free memory that windows may take: libraries need some that no tensor shows


def check_patch(network: nn.Module, inferer: Inferer, manifest: Manifest, shape: Sequence[int]) -> None:
    """Raises BundleInvalid (`patch`) where a network that normalises by instance is shown other than the patches of its training.

    ``shape`` is that of a batch: (1, channels, ...). The mean and the deviation that such a network divides by are those of
    what it sees, so that a whole volume is another image to it than a patch of it (nnU-Net, Isensee et al. 2021, infers with
    windows of the patch size for the same reason).
    """
    if manifest.training is None or not _by_instance(network):
        return
    seen, patch = window(inferer, shape), manifest.training.patch
    if tuple(seen) != tuple(patch):
        raise BundleInvalid(
            f"{manifest.name} was trained on patches of {_by(patch)} and normalises by instance, but would see {_by(seen)} "
            "at once: use SlidingWindowInferer with that roi_size",
            code="patch",
        )


def window(inferer: Inferer, shape: Sequence[int]) -> tuple[int, ...]:
    """Lengths of what the network sees at once of a batch of that shape; MONAI takes a whole axis where one is not positive."""
    whole = tuple(shape[2:])
    sides = getattr(inferer, "roi_size", whole)
    each = (sides,) * len(whole) if isinstance(sides, int) else tuple(sides)
    return tuple(side if side and side > 0 else length for side, length in zip(each, whole, strict=False))


def affordable(inferer: Inferer, network: nn.Module, batch: Tensor) -> int | None:
    """How many windows fit into free memory together, at most as many as the bundle says; None where that cannot be told."""
    wished = int(getattr(inferer, "sw_batch_size", 1))
    free = free_bytes(batch.device)
    if wished <= 1 or free is None:
        return None
    sides = window(inferer, batch.shape)
    needed = window_bytes(network, (1, batch.shape[1], *sides), batch.dtype)
    if needed is None:
        return None
    peak, channels = needed
    stitched = (
        2 * channels * math.prod(batch.shape[2:]) * batch.element_size()
    )  # sums of windows, and how many lie there
    return max(1, min(wished, int((_SHARE * free - stitched) / peak)))


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be had; on a processor what limit and machine leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    machine = free_mib() * MIB
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return machine
    return max(0, min(machine, limit - int(psutil.Process().memory_info().data)))


def window_bytes(network: nn.Module, shape: tuple[int, ...], kind: torch.dtype) -> tuple[int, int] | None:
    """(bytes of the tensors that live at once while a window is run, channels that come out), told without computing any.

    None where the network is no program of PyTorch, or looks at values.
    """
    live = _Live()
    try:
        with torch.inference_mode(False), torch.no_grad():
            # A copy, whose weights take no memory: what a network keeps of a run must not be kept of this one.
            weights = (*network.parameters(), *network.buffers())
            likeness = copy.deepcopy(network, {id(each): _without_values(each) for each in weights})
            with live:
                output: Any = likeness(torch.empty(shape, dtype=kind, device="meta"))
    except Exception:  # noqa: BLE001 - whatever a network raises that was not made for this
        return None
    return (live.most, int(output.shape[1])) if isinstance(output, Tensor) and live.most else None


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are made, and takes off those that are gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now = self.most = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and counts what comes out."""
        output = func(*args, **(kwargs or {}))
        for each in tree_leaves(output):
            if isinstance(each, Tensor) and each.untyped_storage() not in self._known:
                self._add(each.untyped_storage())
        return output

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._known.add(storage)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._take_off, size)

    def _take_off(self, size: int) -> None:
        self._now -= size


def _without_values(weights: Tensor) -> Tensor:
    there = weights.detach().to("meta")
    return nn.Parameter(there, requires_grad=False) if isinstance(weights, nn.Parameter) else there


def _by_instance(network: nn.Module) -> bool:
    """Whether it divides by statistics of what it sees; an ONNX graph does not say."""
    names = (getattr(each, "original_name", type(each).__name__) for each in network.modules())
    return any("InstanceNorm" in name or name == "GroupNorm" for name in names)


def _by(lengths: Sequence[int]) -> str:
    return " x ".join(map(str, lengths))
