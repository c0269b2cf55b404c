"""Channels weighed by what layers say of them: squeeze-and-excitation, for images and volumes."""

from __future__ import annotations

from torch import Tensor, nn


class Gated(nn.Sequential):
    """The input, times what its layers make of it (Hu et al. 2018, arXiv 1709.01507)."""

    def forward(self, input: Tensor) -> Tensor:
        scale: Tensor = super().forward(input)
        return input * scale
