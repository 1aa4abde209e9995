"""A small 3D network that says of a head whether its face is there, was removed, or the whole skull was."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FaceNet(nn.Module):
    """(batch, 1, 48, 48, 48) -> (batch, 3) logits. Two halvings only, so that what it looks at can be told to 20 mm."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, 8, stride=2),
            *_block(8, 16),
            nn.MaxPool3d(2),
            *_block(16, 32),
            *_block(32, 32),
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(64, classes)

    def forward(self, image: Tensor) -> Tensor:
        """How much there is of each feature, and whether there is any, decides: a face is a small part of a head."""
        features = self.features(image)
        pooled = torch.cat([features.mean(dim=(2, 3, 4)), features.amax(dim=(2, 3, 4))], 1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def _block(channels: int, features: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv3d(channels, features, 3, stride, padding=1), nn.GroupNorm(4, features), nn.ReLU()
