"""Is a saliency map about the network? It must pass, or nobody sees it.

Deletion and insertion (Petsiuk et al. 2018): blocks are taken out of the images, or put back into empty ones, the most salient
first, and the answer is watched. The area under its curve must be smaller, or larger, than for blocks in random order.
Randomised weights (Adebayo et al. 2018): a map that comes out alike when the network has forgotten all it knew shows the image
and not the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from gateway.bundle.explanation import Explanation, Faithfulness
from workers.explain.saliency import Map, saliency
from workers.explain.subject import Subject

_EMPTY = 0.02  # of the largest difference: a block in which taking out changes less counts for nothing


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Areas under curves of a probability, 0..1; mean rank correlation with maps of random networks, 0..1."""

    deletion: float
    deletion_random: float
    insertion: float
    insertion_random: float
    alike: float

    def problem(self, asked: Faithfulness) -> str:
        """What is not good enough, as part of a sentence; empty for a map that passes."""
        if not self.deletion <= self.deletion_random - asked.margin:
            return (
                f"taking out what it marks changes the answer no more than taking out anything "
                f"(deletion {self.deletion:.2f}, random {self.deletion_random:.2f})"
            )
        if not self.insertion >= self.insertion_random + asked.margin:
            return (
                f"putting in what it marks brings the answer back no sooner than putting in anything "
                f"(insertion {self.insertion:.2f}, random {self.insertion_random:.2f})"
            )
        if not self.alike <= asked.alike:
            return f"a network with random weights gives a map like it (rank correlation {self.alike:.2f})"
        return ""


def examine(subject: Subject, found: Map, settings: Explanation) -> Scores:
    """Tries the map; the same arguments give the same scores."""
    asked = settings.faithfulness
    random = np.random.default_rng(settings.seed)
    nothing = subject.without(settings.baseline)
    blocks = _blocks(found.shape, asked.blocks)
    changed = _block_means((subject.images - nothing).abs().mean(1)[0].cpu().numpy(), blocks)
    counted = np.flatnonzero(changed > _EMPTY * changed.max()) if changed.max() > 0 else np.arange(0)
    if not len(counted):
        return Scores(deletion=1, deletion_random=1, insertion=0, insertion_random=0, alike=1)
    marks = _block_means(found, blocks)
    ties = random.permutation(len(counted))  # blocks of equal saliency come in no order
    salient = counted[np.lexsort((ties, -marks[counted]))]
    deletion, insertion = _areas(subject, nothing, blocks, salient, asked.steps)
    others = [_areas(subject, nothing, blocks, random.permutation(counted), asked.steps) for _ in range(asked.orders)]
    deletion_random, insertion_random = np.mean(others, axis=0)
    return Scores(
        deletion=deletion,
        deletion_random=float(deletion_random),
        insertion=insertion,
        insertion_random=float(insertion_random),
        alike=_alike(subject, marks[counted], blocks, counted, settings),
    )


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are shuffled within each layer: as large as they were, and without what they had learned."""
    result = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in result.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.detach().cpu().reshape(-1)[order].reshape(parameter.shape))
    return result


def _alike(
    subject: Subject,
    marks: NDArray[np.float64],
    blocks: NDArray[np.int64],
    counted: NDArray[np.int64],
    settings: Explanation,
) -> float:
    found = []
    for number in range(settings.faithfulness.networks):
        network = randomised(subject.network, settings.seed + number)
        other = Subject(network=network, images=subject.images, index=subject.index, exclusive=subject.exclusive)
        theirs = _block_means(saliency(other, settings), blocks)[counted]
        flat = np.ptp(theirs) == 0 or np.ptp(marks) == 0  # no order to compare
        found.append(0.0 if flat else abs(float(spearmanr(marks, theirs).statistic)))
    return float(np.mean(found))


def _areas(
    subject: Subject, nothing: Tensor, blocks: NDArray[np.int64], order: NDArray[np.int64], steps: int
) -> tuple[float, float]:
    """Of deletion and of insertion in this order."""
    rank = np.full(int(blocks.max()) + 1, len(order))
    rank[order] = np.arange(len(order))
    place = torch.from_numpy(rank[blocks]).to(subject.images.device)
    gone = torch.stack([place < round(part * len(order)) for part in np.linspace(0, 1, steps + 1)])[:, None]
    without = torch.where(gone, nothing, subject.images)
    only = torch.where(gone, subject.images, nothing)
    curves = subject.chances(torch.cat([without, only])).double().cpu().numpy()
    deletion, insertion = (np.trapezoid(curve, dx=1 / steps) for curve in (curves[: steps + 1], curves[steps + 1 :]))
    return float(deletion), float(insertion)


def _blocks(shape: tuple[int, ...], along: int) -> NDArray[np.int64]:
    """Number of the block that each voxel is in; blocks of nearly equal size, as many along each axis as there is room for."""
    axes = [np.arange(size) * min(along, size) // size for size in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.asarray((x * along + y) * along + z, np.int64)


def _block_means(values: NDArray[np.float32], blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    total = np.bincount(blocks.reshape(-1), values.reshape(-1).astype(np.float64))
    return np.asarray(total / np.maximum(np.bincount(blocks.reshape(-1)), 1))
