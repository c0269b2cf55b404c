"""V-Net (Milletari et al. 2016, arXiv 1606.04797): residual stages of 5x5x5 convolutions, strided on the way down."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples

Count = Annotated[int, Field(ge=1, le=8)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class VNet:
    """A V-Net: `width` channels at full resolution, doubled at every halving.

    The stages are those of the public implementations (mattmacy/vnet.pytorch and those made from it,
    MONAI's among them): batch norm, ELU, and fewer convolutions than the paper, whose own are
    `down: [2, 3, 3, 3], up: [3, 3, 2, 1], activation: prelu`. MONAI's is `bias: false`; the light one
    of MedicalZooPytorch is `down: [1, 2, 3], up: [2, 1, 1]`.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    """Must divide `width`: the image, written out so often, is added to what the first convolution makes of it."""
    width: Annotated[int, Field(ge=1)] = 16
    down: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (1, 2, 3, 2)
    """How many 5x5x5 convolutions follow each halving; as many halvings as numbers."""
    up: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (2, 2, 1, 1)
    """How many 5x5x5 convolutions follow each doubling, the deepest first; as many numbers as `down`."""
    activation: Literal["elu", "prelu", "relu"] = "elu"
    """What follows each norm; only `relu` disappears into the integer range of the convolution before it."""
    bias: bool = True
    """A bias in the convolutions that a batch norm follows; it changes the size and nothing else."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of whole channels that training drops, of the skips and in the two deepest stages."""
    dims: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if len(self.down) != len(self.up):
            raise ValueError(f"down has {len(self.down)} numbers and up {len(self.up)}; give as many to each")
        if self.width % self.in_channels:
            raise ValueError(f"width {self.width} is no multiple of the {self.in_channels} input channels")

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCDHW = net(image_BCDHW), any floating dtype."""
        return VNetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (depth, height, width), and what would be right; None if nothing."""
        return multiples(size, 2 ** len(self.down))


class VNetModule(nn.Module):
    """The network that `VNet` describes; logits_BCDHW = net(image_BCDHW)."""

    def __init__(self, shape: VNet) -> None:
        super().__init__()
        widths = [shape.width * 2**level for level in range(len(shape.down) + 1)]
        self.first = nn.Sequential(*_conv(shape.in_channels, shape.width, shape))
        self.activation = _activation(shape.width, shape)
        self.encoder = nn.ModuleList(
            _Down(before, after, convs, level >= len(shape.down) - 2, shape)
            for level, ((before, after), convs) in enumerate(zip(pairwise(widths), shape.down, strict=True))
        )
        # What a stage of the decoder makes is twice as wide as its skip.
        skips = widths[-2::-1]
        below = [widths[-1], *(2 * skip for skip in skips)]
        self.decoder = nn.ModuleList(
            _Up(before, skip, convs, level < 2, shape)
            for level, (before, skip, convs) in enumerate(zip(below, skips, shape.up, strict=False))
        )
        self.head = nn.Sequential(
            *_conv(2 * shape.width, shape.classes, shape),
            _activation(shape.classes, shape),
            nn.Conv3d(shape.classes, shape.classes, 1),
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        skips = [self.activation(_with_image(self.first(x_BCDHW), x_BCDHW))]
        for stage in self.encoder:
            skips.append(stage(skips[-1]))
        x_BCDHW = skips.pop()
        for stage in self.decoder:
            x_BCDHW = stage(x_BCDHW, skips.pop())
        return self.head(x_BCDHW)


def _with_image(out_BCDHW: Tensor, image_BCDHW: Tensor) -> Tensor:
    channels = image_BCDHW.shape[1]
    # One channel is added to however many there are: they can be pruned, and no copies are made.
    if channels == 1:
        return out_BCDHW + image_BCDHW
    return out_BCDHW + image_BCDHW.repeat(1, out_BCDHW.shape[1] // channels, 1, 1, 1)


class _Down(nn.Module):
    """Half the resolution, and a residual stage."""

    def __init__(self, before: int, after: int, convs: int, drops: bool, shape: VNet) -> None:
        super().__init__()
        self.shrink = nn.Sequential(
            nn.Conv3d(before, after, 2, stride=2, bias=shape.bias), nn.BatchNorm3d(after), _activation(after, shape)
        )
        self.dropout = nn.Dropout3d(shape.dropout) if drops else nn.Identity()
        self.convs = _convs(after, convs, shape)
        self.activation = _activation(after, shape)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        halved = self.shrink(x_BCDHW)
        return self.activation(self.convs(self.dropout(halved)) + halved)


class _Up(nn.Module):
    """Twice the resolution beside the skip, and a residual stage over both."""

    def __init__(self, before: int, skip: int, convs: int, drops: bool, shape: VNet) -> None:
        super().__init__()
        self.dropout = nn.Dropout3d(shape.dropout) if drops else nn.Identity()
        self.skip_dropout = nn.Dropout3d(shape.dropout)
        self.grow = nn.Sequential(
            nn.ConvTranspose3d(before, skip, 2, stride=2), nn.BatchNorm3d(skip), _activation(skip, shape)
        )
        self.convs = _convs(2 * skip, convs, shape)
        self.activation = _activation(2 * skip, shape)

    def forward(self, x_BCDHW: Tensor, skip_BCDHW: Tensor) -> Tensor:
        both = torch.cat([self.grow(self.dropout(x_BCDHW)), self.skip_dropout(skip_BCDHW)], dim=1)
        return self.activation(self.convs(both) + both)


def _convs(channels: int, count: int, shape: VNet) -> nn.Sequential:
    blocks = ([*_conv(channels, channels, shape), _activation(channels, shape)] for _ in range(count))
    return nn.Sequential(*(layer for block in blocks for layer in block))


def _conv(before: int, after: int, shape: VNet) -> list[nn.Module]:
    return [nn.Conv3d(before, after, 5, padding=2, bias=shape.bias), nn.BatchNorm3d(after)]


def _activation(channels: int, shape: VNet) -> nn.Module:
    if shape.activation == "prelu":
        return nn.PReLU(channels)
    return nn.ELU(inplace=True) if shape.activation == "elu" else nn.ReLU(inplace=True)
