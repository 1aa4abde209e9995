"""A batch through inferer and network, with less memory where there is not enough."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from monai.inferers.inferer import Inferer
from torch import Tensor, nn

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "Cannot allocate memory")


def forward(inferer: Inferer, network: nn.Module, batch: Tensor, note: Callable[[str], object]) -> Any:
    """The network's output; ``note`` is told of each step down a ladder: smaller window batch, stitched on the CPU, all on
    the CPU. The error passes through where no step is left.
    """
    steps = _ladder(inferer, batch.device)
    undo: list[Callable[[], None]] = []
    try:
        while True:
            try:
                return inferer(inputs=batch, network=network)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                step = next(steps, None)
                if step is None:
                    raise
            # Outside of the handler: the error holds on to the tensors of the frames it came through.
            _free()
            what, change = step
            note(what)
            if change is None:
                return _on_the_cpu(inferer, network, batch)
            undo.append(change())
    finally:
        for each in reversed(undo):
            each()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


_Step = tuple[str, Callable[[], Callable[[], None]] | None]


def _ladder(inferer: Inferer, device: torch.device) -> Iterator[_Step]:
    size = getattr(inferer, "sw_batch_size", 1)
    while size > 1:
        size //= 2
        yield f"window batch {size}", partial(_set, inferer, "sw_batch_size", size)
    if device.type == "cpu":
        return
    if hasattr(inferer, "sw_batch_size"):
        yield "stitched on the CPU", partial(_set, inferer, "device", torch.device("cpu"))
    yield "run on the CPU", None


def _set(inferer: Inferer, name: str, value: object) -> Callable[[], None]:
    before = getattr(inferer, name)
    setattr(inferer, name, value)
    return lambda: setattr(inferer, name, before)


def _on_the_cpu(inferer: Inferer, network: nn.Module, batch: Tensor) -> Any:
    with _moved(network, batch.device):
        return inferer(inputs=batch.cpu(), network=network)


@contextmanager
def _moved(network: nn.Module, device: torch.device) -> Iterator[None]:
    network.to("cpu")
    try:
        yield
    finally:
        network.to(device)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
