"""The dense prediction cell (Chen et al. 2018, arXiv 1809.04184), built from its branches: data, not code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.pyramid_pooling import mean_of_parts

Rate = Annotated[int, Field(ge=1, le=64)]
"""Dilation along one axis; 1, 3, 6, 9, ..., 21 in the paper's space."""
Parts = Annotated[int, Field(ge=1, le=16)]
"""Of the features along one axis; 1, 2, 4 and 8 in the paper's space."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Branch:
    """A 1x1 convolution, unless it has rates (a 3x3 separable one with holes) or a grid (means of parts)."""

    reads: Annotated[int, Field(ge=0)] = 0
    """0: what the cell is given; from 1 on: the answer of the branch with this number, an earlier one."""
    rate: tuple[Rate, Rate] | None = None
    """Dilations along height and width."""
    grid: tuple[Parts, Parts] | None = None
    """Parts along height and width; their means go through a 1x1 convolution and are enlarged bilinearly."""

    @model_validator(mode="after")
    def _is_one_operation(self) -> Branch:
        if self.rate is not None and self.grid is not None:
            raise ValueError("has a rate and a grid: it is one of them")
        return self


def _in_order(cell: tuple[Branch, ...]) -> tuple[Branch, ...]:
    for index, branch in enumerate(cell):
        if branch.reads > index:
            raise ValueError(f"branch {index + 1} reads {branch.reads}; it may read 0 to {index}")
    return cell


Cell = Annotated[tuple[Branch, ...], Field(min_length=1), AfterValidator(_in_order)]
"""Branches, each of which reads earlier ones only."""

PUBLISHED = (
    Branch(rate=(1, 6)),
    Branch(reads=1, rate=(18, 15)),
    Branch(reads=2, rate=(6, 3)),
    Branch(reads=1, rate=(1, 1)),
    Branch(reads=1, rate=(6, 21)),
)
"""What the authors found on Cityscapes and released (tensorflow/models, dense_prediction_cell_branch5_top1)."""


class DensePredictionCell(nn.Module):
    """Branches that read the features or each other: out_BCHW = net(features_BCHW), all of them side by side."""

    def __init__(self, cell: Sequence[Branch], before: int, width: int) -> None:
        """Build the cell.

        Args:
            before: channels of the features.
            width: channels of each branch; 256 in the paper.
        """
        super().__init__()
        widths = [before, *[width] * len(cell)]
        self.branches = nn.ModuleList(_operation(branch, widths[branch.reads], width) for branch in cell)
        self._reads = [branch.reads for branch in cell]
        self.channels = len(cell) * width
        """Of what it answers with."""

    def forward(self, features_BCHW: Tensor) -> Tensor:
        states = [features_BCHW]
        for branch, reads in zip(self.branches, self._reads, strict=True):
            states.append(branch(states[reads]))
        return torch.cat(states[1:], dim=1)


class Parted(nn.Module):
    """Means of the parts of a grid, a 1x1 convolution of them, and the size that there was."""

    def __init__(self, grid: tuple[int, int], before: int, after: int) -> None:
        super().__init__()
        self.grid, self.conv = grid, conv_norm_relu(before, after, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mean = self.conv(mean_of_parts(x_BCHW, self.grid))
        return F.interpolate(mean, x_BCHW.shape[2:], mode="bilinear", align_corners=True)


def conv_norm_relu(
    before: int, after: int, kernel: int, *, rate: tuple[int, int] = (1, 1), groups: int = 1
) -> nn.Sequential:
    """A convolution that keeps the size, its batch norm and a ReLU."""
    padding = kernel // 2 * rate[0], kernel // 2 * rate[1]
    layer = nn.Conv2d(before, after, kernel, padding=padding, dilation=rate, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _operation(branch: Branch, before: int, after: int) -> nn.Module:
    if branch.grid is not None:
        return Parted(branch.grid, before, after)
    if branch.rate is None:
        return conv_norm_relu(before, after, 1)
    # The depthwise convolution has a norm and a ReLU of its own, as the authors' layer.
    return nn.Sequential(
        conv_norm_relu(before, before, 3, rate=branch.rate, groups=before), conv_norm_relu(before, after, 1)
    )
