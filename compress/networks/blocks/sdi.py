"""Semantics and detail infusion (U-Net v2, Peng et al. 2023, arXiv 2311.17791): all levels multiplied at one's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class SDI(nn.Module):
    """The product of all levels, each brought to the size of one of them and smoothed by its own 3x3 convolution."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(levels))

    def forward(self, levels: Sequence[Tensor], at: int) -> Tensor:
        """Levels are BCHW, the finest first, each half the one before; the answer is of the size of `levels[at]`."""
        size = levels[at].shape[2:]
        product = self.smooth[at](levels[at])
        for index, (level, smooth) in enumerate(zip(levels, self.smooth, strict=True)):
            if index < at:
                product = product * smooth(F.avg_pool2d(level, 2 ** (at - index)))
            elif index > at:
                product = product * smooth(F.interpolate(level, size=size, mode="bilinear", align_corners=True))
        return product
