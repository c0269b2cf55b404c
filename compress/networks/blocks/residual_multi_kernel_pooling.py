"""Residual multi-kernel pooling (Gu et al. 2019, arXiv 1903.02740, section III-C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualMultiKernelPooling(nn.Module):
    """The input, and behind its channels one map for each kernel: what is left when pooled that far, enlarged.

    All maps are by one 1x1 convolution. Its input must be no smaller than the largest kernel.
    """

    def __init__(self, channels: int, kernels: Sequence[int] = (2, 3, 5, 6)) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(kernel) for kernel in kernels)
        self.conv = nn.Conv2d(channels, 1, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        size = x_BCHW.shape[2:]
        maps = (self.conv(pool(x_BCHW)) for pool in self.pools)
        enlarged = [F.interpolate(each, size, mode="bilinear", align_corners=False) for each in maps]
        return torch.cat([*enlarged, x_BCHW], dim=1)
