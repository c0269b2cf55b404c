"""Residual 3-D U-Net with summed deep supervision (Isensee et al. 2018, arXiv 1802.10508), or modified 3-D U-Net."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ResidualUNet3D:
    """The paper's network: four halvings by strided convolutions, residual contexts, `width` channels at full size.

    The logits of three resolutions are added, in training and after it: there are no further answers.
    MedicalZooPytorch's `UNet3D` is `width: 8, shared: true`.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=1)] = 16
    shared: bool = False
    """The two convolutions of a context below full size are one, called twice, as in public implementations;
    in the paper they have weights of their own."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of whole channels that training drops between the two convolutions of a context."""
    dims: ClassVar[int] = 3

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCDHW = net(image_BCDHW), any floating dtype."""
        return ResidualUNet3DModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (depth, height, width), and what would be right; None if nothing."""
        if set(size) == {16}:
            return (
                "instance norm needs more than one voxel at a sixteenth of the size: pad to 16x16x32 or set data size"
            )
        return multiples(size, 16)


class ResidualUNet3DModule(nn.Module):
    """The network that `ResidualUNet3D` describes; logits_BCDHW = net(image_BCDHW)."""

    def __init__(self, shape: ResidualUNet3D) -> None:
        super().__init__()
        widths = [shape.width * 2**level for level in range(5)]
        self.first = _First(shape.in_channels, shape)
        self.norms = nn.ModuleList(_norm_relu(width) for width in widths[:-1])
        self.contexts = nn.ModuleList(_Context(before, after, shape) for before, after in pairwise(widths))
        self.up = nn.ModuleList(_up(before, after) for before, after in pairwise(widths[::-1]))
        # The deepest is mixed after it is up-sampled, the others are narrowed before.
        self.mix = nn.Sequential(_conv(widths[3], widths[3], 1), _norm_relu(widths[3]))
        self.merge = nn.ModuleList(_conv_norm_relu(2 * width, 2 * width) for width in widths[3::-1])
        self.narrow = nn.ModuleList([nn.Identity(), *(_conv(2 * width, width, 1) for width in widths[3:0:-1])])
        self.head = _conv(2 * widths[0], shape.classes, 1)
        self.lower_heads = nn.ModuleList(_conv(2 * width, shape.classes, 1) for width in widths[2:0:-1])

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        x_BCDHW = self.first(x_BCDHW)
        # The skip at full size is taken before the norm, those below it after.
        skips = [F.leaky_relu(x_BCDHW)]
        for level, (norm, context) in enumerate(zip(self.norms, self.contexts, strict=True)):
            x_BCDHW = norm(x_BCDHW)
            if level > 0:
                skips.append(x_BCDHW)
            x_BCDHW = context(x_BCDHW)
        return self._decoded(x_BCDHW, skips)

    def _decoded(self, x_BCDHW: Tensor, skips: list[Tensor]) -> Tensor:
        merged = []
        for level, (narrow, up, merge) in enumerate(zip(self.narrow, self.up, self.merge, strict=True)):
            x_BCDHW = up(narrow(x_BCDHW))
            x_BCDHW = merge(torch.cat([self.mix(x_BCDHW) if level == 0 else x_BCDHW, skips.pop()], dim=1))
            merged.append(x_BCDHW)
        lower = _doubled(self.lower_heads[0](merged[1])) + self.lower_heads[1](merged[2])
        return self.head(x_BCDHW) + _doubled(lower)


class _First(nn.Module):
    """The context at full size, whose convolutions no norm precedes."""

    def __init__(self, in_channels: int, shape: ResidualUNet3D) -> None:
        super().__init__()
        self.enter = _conv(in_channels, shape.width, 3)
        self.first, self.second = _conv(shape.width, shape.width, 3), _conv(shape.width, shape.width, 3)
        self.dropout = nn.Dropout3d(shape.dropout)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        entered = self.enter(x_BCDHW)
        out = self.dropout(self.first(F.leaky_relu(entered)))
        return self.second(F.leaky_relu(out)) + entered


class _Context(nn.Module):
    """Half the resolution, and a residual pair of convolutions, each after its norm."""

    def __init__(self, before: int, after: int, shape: ResidualUNet3D) -> None:
        super().__init__()
        self.enter = _conv(before, after, 3, stride=2)
        self.first = nn.Sequential(_norm_relu(after), _conv(after, after, 3))
        self.dropout = nn.Dropout3d(shape.dropout)
        self.second = self.first if shape.shared else nn.Sequential(_norm_relu(after), _conv(after, after, 3))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        entered = self.enter(x_BCDHW)
        return self.second(self.dropout(self.first(entered))) + entered


def _up(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        _norm_relu(before), nn.Upsample(scale_factor=2.0, mode="nearest"), *_conv_norm_relu(before, after)
    )


def _doubled(x_BCDHW: Tensor) -> Tensor:
    return F.interpolate(x_BCDHW, scale_factor=2.0, mode="nearest")


def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.InstanceNorm3d(channels), nn.LeakyReLU(inplace=True))


def _conv_norm_relu(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_conv(before, after, 3), *_norm_relu(after))
