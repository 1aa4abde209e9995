"""The brain extraction U-Net of deepbrain 0.1 (MIT), in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = (8, 16, 32)
DROPOUT = 0.3


class BrainUNet(nn.Module):
    """A U-Net with three levels and 171,465 parameters: (batch, 1, x, y, z) intensities in, logits of the same shape out.

    Each side must be a multiple of 8; it was trained on 128. Where the original pads its transposed convolutions as
    TensorFlow does ("SAME"), the last voxel of each axis is cut off here.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *CHANNELS[:-1])
        self.down = nn.ModuleList(_two_convolutions(i, o) for i, o in zip(inputs, CHANNELS, strict=True))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(i, o, kernel_size=3, stride=2, bias=False)
            for i, o in zip((CHANNELS[-1], *CHANNELS[:0:-1]), CHANNELS[::-1], strict=True)
        )
        self.merge = nn.ModuleList(nn.Conv3d(2 * width, width, kernel_size=3, padding=1) for width in CHANNELS[::-1])
        self.head = nn.Conv3d(CHANNELS[0], 1, kernel_size=1)
        self.pool = nn.MaxPool3d(2)
        self.drop = nn.Dropout(DROPOUT)
        self.relu = nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        """Logits of brain."""
        kept = []
        for convolutions in self.down:
            image = convolutions(image)
            kept.append(image)
            image = self.drop(self.pool(image))
        for up, merge in zip(self.up, self.merge, strict=True):
            widened = up(image)[..., :-1, :-1, :-1]
            image = self.drop(self.relu(merge(torch.cat([widened, kept.pop()], dim=1))))
        logits: Tensor = self.head(image)
        return logits


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv3d(outputs, outputs, kernel_size=3, padding=1),
        nn.ReLU(),
    )
