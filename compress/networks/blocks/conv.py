"""A convolution with its norm and its activation, and what U-shaped networks build of them.

Each function answers with plain layers, or with one `nn.Sequential` of them, so that the names in a state dict
are places in that sequence: 0 the convolution, 1 its norm (if any), then the activation.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["none", "batch", "instance", "group"]
Up = Literal["transposed", "nearest"]


def conv(before: int, after: int, *, kernel: int = 3, norm: Norm = "batch", padded: bool = True) -> list[nn.Module]:
    """A convolution with a bias, its norm and a ReLU; padded (odd kernels) it keeps the size."""
    padding = kernel // 2 if padded else 0
    return [nn.Conv2d(before, after, kernel, padding=padding), *normed(after, norm), nn.ReLU(inplace=True)]


def double_conv(before: int, after: int, *, norm: Norm = "batch", padded: bool = True) -> nn.Sequential:
    """Two 3x3 convolutions, each with its norm and a ReLU: the block of the U-Net (Ronneberger et al. 2015)."""
    return nn.Sequential(
        *conv(before, after, norm=norm, padded=padded),
        *conv(after, after, norm=norm, padded=padded),
    )


def normed(channels: int, norm: Norm) -> list[nn.Module]:
    """The norm of this name over as many channels; nothing for none. Groups are the most of 8, 4, 2 and 1 that fit."""
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    if norm == "instance":
        return [nn.InstanceNorm2d(channels, affine=True)]
    if norm == "group":
        return [nn.GroupNorm(next(groups for groups in (8, 4, 2, 1) if channels % groups == 0), channels)]
    return []


def up(before: int, after: int, *, kind: Up, norm: Norm = "batch") -> nn.Module:
    """Twice the resolution: a 2x2 transposed convolution, or nearest neighbours and a 3x3 convolution."""
    if kind == "transposed":
        return nn.ConvTranspose2d(before, after, 2, stride=2)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), *conv(before, after, norm=norm))
