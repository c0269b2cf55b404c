"""Layers side by side on one input."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Branches(nn.Sequential):
    """Layers side by side on the same input, their answers concatenated along the channels."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([layer(input) for layer in self], 1)
