"""A batch through inferer and network, with less memory where there is not enough."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from monai.inferers.inferer import Inferer
from torch import Tensor, nn

from workers.infer.windows import affordable

_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad_alloc")


def forward(
    inferer: Inferer, network: nn.Module, batch: Tensor, note: Callable[[str], object], plain: nn.Module | None = None
) -> Any:
    """The network's output, of as many windows at once as there is memory for.

    ``note`` is told of that, and of each step down a ladder where it was wrong: smaller window batch, stitched on the CPU, all on
    the CPU. The error passes through where no step is left. What a network was content with, it begins with the next time.
    ``plain`` is the network before it was made faster, which tells its memory.
    """
    size = affordable(inferer, plain or network, batch)
    undo = _begin(inferer, network, size, note)
    steps = _ladder(inferer, batch.device)
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
            if hasattr(inferer, "sw_batch_size"):
                _content[network] = inferer.sw_batch_size
    finally:
        for each in reversed(undo):
            each()


_content: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Network -> window batch that it came down to."""


def _begin(
    inferer: Inferer, network: nn.Module, size: int | None, note: Callable[[str], object]
) -> list[Callable[[], None]]:
    """Sets the window batch, says so, and gives what undoes it."""
    wished = getattr(inferer, "sw_batch_size", 1)
    learned, size = _content.get(network, wished), size or wished
    if min(size, learned) >= wished:
        return []
    note(f"window batch {size} by free memory" if size < learned else f"window batch {learned}")
    return [_set(inferer, "sw_batch_size", min(size, learned))]


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
