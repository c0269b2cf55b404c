"""The segmentor of SegAN (Xue et al. 2018, arXiv 1706.01805); its critic is in compress/train/adversarial.py."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.he import he_initialised

SMALLEST = 33
"""A side that still has a pixel after six halvings of which one rounds down."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SegAN:
    """A U-Net of seven halvings with a residual block at every level and global convolutions on the way up.

    The authors' network is the default one (156,265,344 parameters for three input channels and one
    class). 30,080 of them are in norms of its residual blocks that the authors build and do not use; they
    are built here too (`unused`), so that a network has their number, and no gradient ever reaches them.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 64
    """Channels after the first halving; 2, 4, 8, 8, 16 and 32 times as many after the others."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype."""
        return SegANModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        if min(size) >= SMALLEST:
            return None
        wanted = "x".join(str(max(side, SMALLEST)) for side in size)
        return f"nothing is left of fewer than {SMALLEST} pixels after seven halvings: pad to {wanted} or set data size"


class SegANModule(nn.Module):
    """The network that `SegAN` describes."""

    def __init__(self, shape: SegAN) -> None:
        super().__init__()
        one, two, four, eight, eight_again, sixteen, most = (shape.width * times for times in (1, 2, 4, 8, 8, 16, 32))
        first = nn.Conv2d(shape.in_channels, one, 7, stride=2, padding=3, bias=False)
        self.down = nn.ModuleList([nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True), Bottleneck(one, leak=0.2))])
        for before, after in pairwise((one, two, four, eight, eight_again)):
            self.down.append(nn.Sequential(*_leaky(before, after, 5, stride=2), Bottleneck(after, leak=0.2)))
        self.down.append(nn.Sequential(*_leaky(eight, sixteen, 4, stride=2), Added(_leaky(sixteen, sixteen, 1))))
        self.down.append(nn.Sequential(*_leaky(sixteen, most, 3, stride=2)))
        self.middle = nn.Sequential(*_leaky(most, eight, 1), *_relu(nn.Conv2d(eight, most, 1, bias=False), most))
        self.up = nn.ModuleList(
            [
                nn.Sequential(
                    *_relu(_same(2 * most, sixteen, 3), sixteen), Added(_relu(_same(sixteen, sixteen, 1), sixteen))
                ),
                nn.Sequential(*_relu(_same(2 * sixteen, eight, 3), eight), Bottleneck(eight)),
                *(
                    nn.Sequential(*_relu(GlobalConv(2 * before, after, kernel), after), Bottleneck(after))
                    for before, after, kernel in (
                        (eight, eight, 7),
                        (eight, four, 7),
                        (four, two, 9),
                        (two, one, 9),
                        (one, one, 11),
                    )
                ),
            ]
        )
        self.head = _same(one, shape.classes, 5)
        he_initialised(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        levels = [x_BCHW]
        for block in self.down:
            levels.append(block(levels[-1]))
        x_BCHW = self.middle(levels[-1])
        for index, block in enumerate(self.up):
            skip, larger = levels[-1 - index], levels[-2 - index]
            x_BCHW = torch.cat([skip, x_BCHW], dim=1)
            x_BCHW = block(F.interpolate(x_BCHW, size=larger.shape[2:], mode="bilinear"))
        return self.head(x_BCHW)


class Bottleneck(nn.Module):
    """Through twice as many channels and back, added to the input; its norms are `unused`, as the authors'."""

    def __init__(self, channels: int, *, leak: float = 0) -> None:
        super().__init__()
        wide = 2 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            _activation(leak),
            _same(wide, wide, 3),
            _activation(leak),
            nn.Conv2d(wide, channels, 1, bias=False),
            _activation(leak),
        )
        self.unused = nn.ModuleList(nn.BatchNorm2d(width) for width in (wide, wide, channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.body(x_BCHW)


class Added(nn.Sequential):
    """Layers whose answer is added to their input."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + super().forward(x_BCHW)


class GlobalConv(nn.Module):
    """A large kernel as two pairs of one-dimensional ones (Peng et al. 2017, arXiv 1703.02719)."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        tall, wide = (kernel, 1), (1, kernel)
        self.tall_wide = nn.Sequential(_separable(before, after, tall), _separable(after, after, wide))
        self.wide_tall = nn.Sequential(_separable(before, after, wide), _separable(after, after, tall))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.tall_wide(x_BCHW) + self.wide_tall(x_BCHW)


def _separable(before: int, after: int, kernel: tuple[int, int]) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=(kernel[0] // 2, kernel[1] // 2))


def _same(before: int, after: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)


def _leaky(before: int, after: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)
    return [conv, nn.BatchNorm2d(after), _activation(0.2)]


def _relu(conv: nn.Module, channels: int) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(channels), _activation(0)]


def _activation(leak: float) -> nn.Module:
    return nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True)
