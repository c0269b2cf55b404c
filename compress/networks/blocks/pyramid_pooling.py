"""Pyramid pooling (Zhao et al. 2017, arXiv 1612.01105, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PyramidPooling(nn.Module):
    """The input, and beside it its means over 1, 4, 9 and 36 parts of the image: twice the channels.

    Where the parts are equally large (sides that are multiples of 6), the means are ordinary average pooling, which
    every runtime has; elsewhere parts overlap, and the exported file gathers them one by one.
    """

    def __init__(self, channels: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.branches = nn.ModuleList(_branch(channels, channels // len(self.bins)) for _ in self.bins)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        size = x_BCHW.shape[2:]
        means = [
            branch(mean_of_parts(x_BCHW, (parts, parts)))
            for branch, parts in zip(self.branches, self.bins, strict=True)
        ]
        enlarged = (F.interpolate(mean, size, mode="bilinear", align_corners=True) for mean in means)
        return torch.cat([x_BCHW, *enlarged], dim=1)


def _branch(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def mean_of_parts(x_BCHW: Tensor, parts: tuple[int, int]) -> Tensor:
    """The means over a grid of so many parts along height and width."""
    height, width = x_BCHW.shape[2:]
    if parts == (1, 1):
        return x_BCHW.mean((2, 3), keepdim=True)
    if height % parts[0] == 0 and width % parts[1] == 0:
        return F.avg_pool2d(x_BCHW, (height // parts[0], width // parts[1]))
    return F.adaptive_avg_pool2d(x_BCHW, parts)
