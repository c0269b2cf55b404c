"""A hybrid of 2-D and separable 3-D convolutions after LW-HCN (Zhang et al. 2019, doi 10.24963/ijcai.2019/593)."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.he import he_initialised


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Hybrid3D:
    """An encoder that looks at single slices while they are large, and at volumes once they are small.

    Its first `flat` levels are 2-D convolutions, each followed by a halving within the slice. All
    other levels, and the whole decoder, are 3-D convolutions taken apart: a filter for each channel,
    first within the slice, then across slices, and a 1x1x1 convolution between the channels (the paper's
    depthwise and spatiotemporal separate factorization). Widths and depth are this project's own.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=1)] = 32
    """Channels at full resolution, doubled at every level."""
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    """How often height and width are halved."""
    flat: Annotated[int, Field(ge=0, le=8)] = 1
    """Levels of 2-D convolutions; the depth is halved `depth - flat` times."""
    apart: bool = True
    """Filters within the slice and across slices are two layers; false: one of 3x3x3."""
    dims: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.flat > self.depth:
            raise ValueError(
                f"flat is {self.flat}, but there are only {self.depth} halvings; give at most {self.depth}"
            )

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCDHW = net(image_BCDHW), any floating dtype."""
        return Hybrid3DModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (depth, height, width), and what would be right; None if nothing."""
        within = 2**self.depth
        return multiples(size, (2 ** (self.depth - self.flat), within, within))


class Hybrid3DModule(nn.Module):
    """The network that `Hybrid3D` describes; logits_BCDHW = net(image_BCDHW)."""

    def __init__(self, shape: Hybrid3D) -> None:
        super().__init__()
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        steps = [(1 if level < shape.flat else 2, 2, 2) for level in range(shape.depth)]
        self.encoder = nn.ModuleList(
            _Stage(before, after, level < shape.flat, shape.apart)
            for level, (before, after) in enumerate(pairwise([shape.in_channels, *widths]))
        )
        self.pool = nn.ModuleList([nn.Identity(), *(nn.MaxPool3d(step) for step in steps)])
        self.up = nn.ModuleList(
            nn.Upsample(scale_factor=tuple(map(float, step)), mode="trilinear") for step in steps[::-1]
        )
        self.decoder = nn.ModuleList(
            _Stage(below + width, width, False, shape.apart) for width, below in reversed(list(pairwise(widths)))
        )
        self.head = nn.Conv3d(shape.width, shape.classes, 1)
        he_initialised(self)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for pool, stage in zip(self.pool, self.encoder, strict=True):
            skips.append(stage(pool(skips[-1] if skips else x_BCDHW)))
        x_BCDHW = skips.pop()
        for up, stage in zip(self.up, self.decoder, strict=True):
            x_BCDHW = stage(torch.cat([skips.pop(), up(x_BCDHW)], dim=1))
        return self.head(x_BCDHW)


class _Stage(nn.Module):
    """Two convolutions with their norms, the second around a shortcut."""

    def __init__(self, before: int, after: int, flat: bool, apart: bool) -> None:
        super().__init__()
        conv = _flat if flat else _apart if apart else _separable
        self.first = nn.Sequential(*conv(before, after), nn.BatchNorm3d(after), nn.ReLU(inplace=True))
        self.second = nn.Sequential(*conv(after, after), nn.BatchNorm3d(after))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        x_BCDHW = self.first(x_BCDHW)
        return F.relu(self.second(x_BCDHW) + x_BCDHW)


def _flat(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv3d(before, after, (1, 3, 3), padding=(0, 1, 1), bias=False)]


def _separable(before: int, after: int) -> list[nn.Module]:
    return [*_each(before, (3, 3, 3)), nn.Conv3d(before, after, 1, bias=False)]


def _apart(before: int, after: int) -> list[nn.Module]:
    return [*_each(before, (1, 3, 3)), *_each(before, (3, 1, 1)), nn.Conv3d(before, after, 1, bias=False)]


def _each(channels: int, kernel: tuple[int, int, int]) -> list[nn.Module]:
    """A filter for each channel."""
    padding = kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
    return [nn.Conv3d(channels, channels, kernel, padding=padding, groups=channels, bias=False)]
