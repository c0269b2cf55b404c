"""KiU-Net (Valanarasu et al. 2020, arXiv 2006.04878): a U-Net beside a branch that enlarges its features, Ki-Net."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import Norm, conv, normed

LEVELS = 3


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KiUNet:
    """A KiU-Net of three levels: `width` channels on the first, doubled on each other one.

    The defaults are the authors' network (290,658 parameters for one input channel and two classes);
    `branches: ki, width: 32, norm: none` is their Ki-Net with skips, alone (185,506). Their ReLU on the
    logits is left out: it would hold a single logit at or above 0, and gradients stop where it is 0.

    The authors build one pair of crossings more than they use; it is built here too (`unused`), so that a
    network has their number of parameters, and no gradient ever reaches it.

    Ki-Net's features have up to eight times the input's resolution: memory and work lie there, not in weights.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=2)] = 16
    norm: Norm = "batch"
    branches: Literal["both", "ki"] = "both"
    """Both with crossings between them, or Ki-Net alone."""
    dims: ClassVar[int] = 2

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        if self.branches == "ki":
            return None
        step = 2**LEVELS
        if self.norm == "instance" and set(size) == {step}:
            return f"instance norm needs more than one pixel: pad to {2 * step}x{2 * step} or set data size"
        return multiples(size, step)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return KiUNetModule(self) if self.branches == "both" else KiNetModule(self)


class KiUNetModule(nn.Module):
    """Both branches of the network that `KiUNet` describes.

    After each level but the last they cross: each branch adds the other's features, convolved and brought
    to its own resolution. A level of the decoder then adds its branch's features of the encoder.
    """

    def __init__(self, shape: KiUNet) -> None:
        super().__init__()
        down = [shape.in_channels, *(shape.width * 2**level for level in range(LEVELS))]
        rise = [*reversed(down[1:]), shape.width // 2]
        crossed = [*down[1:], *rise[1:-1]]
        self.u_encoder, self.u_decoder = _levels(down, shape.norm, 0.5), _levels(rise, shape.norm, 2)
        self.ki_encoder, self.ki_decoder = _levels(down, shape.norm, 2), _levels(rise, shape.norm, 0.5)
        self.to_u = nn.ModuleList(_crossing(width, shape.norm) for width in crossed)
        self.to_ki = nn.ModuleList(_crossing(width, shape.norm) for width in crossed)
        self.unused = nn.ModuleList(_crossing(down[-1], shape.norm) for _ in range(2))
        self.head = nn.Conv2d(rise[-1], shape.classes, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        u, ki = x_BCHW, x_BCHW
        skips = []
        for level in range(LEVELS):
            u, ki = self._crossed(level, self.u_encoder[level](u), self.ki_encoder[level](ki))
            skips.append((u, ki))
        skips.pop()
        for level in range(LEVELS - 1):
            u, ki = self._crossed(LEVELS + level, self.u_decoder[level](u), self.ki_decoder[level](ki))
            u_skip, ki_skip = skips.pop()
            u, ki = u + u_skip, ki + ki_skip
        return self.head(self.u_decoder[-1](u) + self.ki_decoder[-1](ki))

    def _crossed(self, place: int, u: Tensor, ki: Tensor) -> tuple[Tensor, Tensor]:
        return u + _fitted(self.to_u[place](ki), u), ki + _fitted(self.to_ki[place](u), ki)


class KiNetModule(nn.Module):
    """Ki-Net alone: each level of the encoder enlarges, each of the decoder pools and adds a skip."""

    def __init__(self, shape: KiUNet) -> None:
        super().__init__()
        down = [shape.in_channels, *(shape.width * 2**level for level in range(LEVELS))]
        self.encoder = _levels(down, shape.norm, 2)
        self.decoder = _levels([*reversed(down[1:])], shape.norm, 0.5)
        self.head = nn.Sequential(nn.Conv2d(shape.width, shape.classes, 3, padding=1), nn.MaxPool2d(2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        skips = []
        for enlarge in self.encoder:
            x_BCHW = enlarge(x_BCHW)
            skips.append(x_BCHW)
        skips.pop()
        for pool in self.decoder:
            x_BCHW = pool(x_BCHW) + skips.pop()
        return self.head(x_BCHW)


def _levels(widths: list[int], norm: Norm, scale: float) -> nn.ModuleList:
    """One level for each pair of widths: a convolution, the change of resolution, the norm, a ReLU."""
    return nn.ModuleList(
        nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1), _resized(scale), *normed(after, norm), nn.ReLU(inplace=True)
        )
        for before, after in pairwise(widths)
    )


def _crossing(width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(*conv(width, width, norm=norm))


def _fitted(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear")


def _resized(scale: float) -> nn.Module:
    return nn.MaxPool2d(2) if scale < 1 else nn.Upsample(scale_factor=scale, mode="bilinear")
