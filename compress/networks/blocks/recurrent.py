"""Recurrent convolutions and the residual block of two of them (Alom et al. 2018, arXiv 1802.06955)."""

from __future__ import annotations

from torch import Tensor, nn

from compress.networks.blocks.conv import conv


class Recurrent(nn.Module):
    """One 3x3 convolution with its norm, applied 1 + `steps` times: each time to the input and its own last answer."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*conv(channels, channels))
        self.steps = steps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        state_BCHW = self.conv(x_BCHW)
        for _ in range(self.steps):
            state_BCHW = self.conv(x_BCHW + state_BCHW)
        return state_BCHW


class RecurrentResidual(nn.Module):
    """Figure 4d of the paper: a 1x1 convolution to the block's width, and two recurrent convolutions added to it."""

    def __init__(self, before: int, after: int, steps: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(before, after, 1)
        self.body = nn.Sequential(Recurrent(after, steps), Recurrent(after, steps))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.enter(x_BCHW)
        return x_BCHW + self.body(x_BCHW)
