"""What is explained: one number of a network, as something that can be asked about changed images and derived by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor, nn

from workers.infer.model import Model

_AT_ONCE = 4  # images in one batch


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network with one number for each finding, the images as it sees them, and the number that is explained."""

    network: nn.Module  # (images, channels, x, y, z) -> (images, findings): logits
    images: Tensor  # one, as the bundle's preprocessing leaves it
    index: int
    exclusive: bool

    def chances(self, images: Tensor) -> Tensor:
        """What the network thinks of changed images: a probability for each, 0..1."""
        with torch.no_grad():
            logits = torch.cat([self.network(part) for part in torch.split(images, _AT_ONCE)])
        return torch.softmax(logits, 1)[:, self.index] if self.exclusive else torch.sigmoid(logits[:, self.index])

    def slope(self, images: Tensor) -> Tensor:
        """Derivative of the logit by the voxels."""
        varied = images.detach().clone().requires_grad_()
        self.network(varied)[:, self.index].sum().backward()
        assert varied.grad is not None  # noqa: S101
        return varied.grad

    def without(self, kind: str) -> Tensor:
        """Images with nothing in them, one way or another: where it is copied in, something is taken out."""
        if kind == "minimum":
            return torch.full_like(self.images, float(self.images.min()))
        if kind == "mean":
            return torch.full_like(self.images, float(self.images.mean()))
        sigma = [0, 0, *(max(size / 8, 1) for size in self.images.shape[2:])]
        return torch.from_numpy(ndimage.gaussian_filter(self.images.cpu().numpy(), sigma)).to(self.images)


class Painted(nn.Module):
    """A segmentation network as one with a number for each segment: its mean logit where the segment was painted."""

    def __init__(self, network: nn.Module, images: Tensor, segments: int) -> None:
        super().__init__()
        self.network, self._segments = network, segments
        with torch.no_grad():
            logits = self._of_segments(network(images))
        self.painted = logits > 0

    def forward(self, images: Tensor) -> Tensor:
        """(images, segments)."""
        logits = self._of_segments(self.network(images))
        axes = tuple(range(2, logits.dim()))
        return (logits * self.painted).sum(axes) / self.painted.sum(axes).clamp(min=1)

    def _of_segments(self, output: Tensor) -> Tensor:
        """Above zero where a segment is likelier than what else there may be."""
        if output.shape[1] == self._segments:
            return output
        rest = torch.stack(
            [
                torch.cat([output[:, :channel], output[:, channel + 1 :]], 1).logsumexp(1)
                for channel in range(1, output.shape[1])
            ],
            1,
        )
        return output[:, 1:] - rest


def subject_of(model: Model, images: Tensor, index: int) -> Subject:
    """Of a classification the network itself; ``index`` counts findings or segments from 0."""
    output = model.manifest.output
    network = (model.plain or model).network  # what was made faster has no layers and no gradient
    if output.kind == "classification":
        return Subject(network=network, images=images, index=index, exclusive=output.exclusive)
    painted = Painted(network, images, len(output.segments))
    return Subject(network=painted, images=images, index=index, exclusive=False)
