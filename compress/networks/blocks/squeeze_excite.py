"""Squeeze-and-excitation (Hu et al. 2018, arXiv 1709.01507): channels weigh each other by their means."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales each channel by a number from 0 to 1 that all channels' means decide.

    The two layers between are 1x1 convolutions with biases, over 1/`reduction` of the channels, at least one.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.scale = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.ReLU(inplace=True), nn.Conv2d(inner, channels, 1), nn.Sigmoid()
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.scale(x_BCHW.mean(dim=(2, 3), keepdim=True))
