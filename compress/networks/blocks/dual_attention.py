"""Dual attention (Fu et al. 2019, arXiv 1809.02983): pixels that read each other, and channels that do.

Legend: N pixels, Q channels of queries and keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PositionAttention(nn.Module):
    """Adds to each pixel what all pixels hold, weighed by likeness; the sum's share is learnt and starts at 0.

    Queries and keys have an eighth of the channels, at least one. Its memory grows with the square of the pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query_BQN, key_BQN, value_BCN = (layer(x_BCHW).flatten(2) for layer in (self.query, self.key, self.value))
        weights_BNN = (query_BQN.transpose(1, 2) @ key_BQN).softmax(dim=2)
        read_BCN = value_BCN @ weights_BNN.transpose(1, 2)
        return x_BCHW + self.share * read_BCN.unflatten(2, x_BCHW.shape[2:])


class ChannelAttention(nn.Module):
    """Adds to each channel a mixture of all channels, the unlike ones most; its share is learnt and starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCN = x_BCHW.flatten(2)
        likeness_BCC = x_BCN @ x_BCN.transpose(1, 2)
        weights_BCC = (likeness_BCC.amax(dim=2, keepdim=True) - likeness_BCC).softmax(dim=2)
        return x_BCHW + self.share * (weights_BCC @ x_BCN).unflatten(2, x_BCHW.shape[2:])
