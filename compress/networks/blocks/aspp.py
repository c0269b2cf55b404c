"""Atrous spatial pyramid pooling as DeepLab v2 has it (Chen et al. 2016, arXiv 1606.00915, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SummedAtrous(nn.Module):
    """3x3 convolutions of several dilations side by side, each a classifier of its own, and the sum of their logits."""

    def __init__(self, before: int, after: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(before, after, 3, padding=rate, dilation=rate) for rate in dilations)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first, *others = self.branches
        answer: Tensor = first(x_BCHW)
        for branch in others:
            answer = answer + branch(x_BCHW)
        return answer
