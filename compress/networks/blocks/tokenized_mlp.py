"""The tokenized MLP of UNeXt (Valanarasu and Patel 2022, arXiv 2203.04967): shifts, 1x1 and depthwise convolutions."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACH = 2
"""Groups of channels are shifted by -REACH to REACH pixels."""


class TokenizedMlp(nn.Module):
    """What each token learns of its neighbours, added to it: BCHW to BCHW (section 2.2).

    A token is a pixel, and its linear layers are 1x1 convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.act = nn.GELU()
        self.second = nn.Conv2d(channels, channels, 1)
        for layer in (self.first, self.second):
            # The authors' initialisation: at first a token hardly changes.
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        token_BCHW = self.first(shifted(self.norm(x_BCHW), 2))
        token_BCHW = self.act(self.depthwise(token_BCHW))
        return x_BCHW + self.second(shifted(token_BCHW, 3))


class ChannelNorm(nn.Module):
    """Layer normalization of each pixel over its channels; BCHW to BCHW."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.norm(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def shifted(x_BCHW: Tensor, axis: Literal[2, 3]) -> Tensor:
    """Five groups of channels, each moved by its own distance along one axis; zeros come in from outside."""
    side = x_BCHW.shape[axis]
    padded = F.pad(x_BCHW, (0, 0, REACH, REACH) if axis == 2 else (REACH, REACH))
    groups = padded.chunk(2 * REACH + 1, dim=1)
    return torch.cat([group.narrow(axis, 2 * REACH - index, side) for index, group in enumerate(groups)], dim=1)
