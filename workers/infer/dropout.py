"""Dropout as a question: what would a slightly different network say? (Gal and Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_LAYERS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def has_dropout(network: nn.Module) -> bool:
    """Whether there is anything to leave out."""
    return any(isinstance(module, _LAYERS) and module.p > 0 for module in network.modules())


@contextmanager
def dropout(network: nn.Module) -> Iterator[None]:
    """Dropout on, all else as it was: normalisation must keep its statistics."""
    layers = [module for module in network.modules() if isinstance(module, _LAYERS)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
