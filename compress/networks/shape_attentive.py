"""Shape attentive U-Net, SAUNet (Sun et al. 2020, arXiv 2001.07645): a DenseNet's U with a gated stream of shapes."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import conv
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.resnet import Basic
from compress.networks.blocks.squeeze_excite import SqueezeExcite

STEP = 32


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ShapeAttentive:
    """A SAUNet; the defaults are the authors', on a DenseNet-121 (Huang et al. 2017, arXiv 1608.06993).

    The texture stream is the DenseNet (MONAI's, without the classifier, the first ReLU and the first pooling)
    under a decoder of spatial and channel attention. The shape stream takes the first features at full size
    through residual blocks and gates (Takikawa et al. 2019, arXiv 1907.05740), ends in one map of edges, and
    joins the decoder before its last block.

    Beside that map the authors feed Canny's edges of the image, found outside the network. Here it is
    Sobel's |dx| + |dy| of the mean channel, from which Canny's edges are chosen: it is exported with the rest.
    Their second loss, of the map of edges against the masks' boundaries, is not here: the map learns through
    the decoder alone.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    stem: Annotated[int, Field(ge=2)] = 64
    """Channels of the DenseNet's first convolution."""
    growth: Annotated[int, Field(ge=1)] = 32
    """Channels that each of its layers adds."""
    layers: tuple[int, int, int, int] = (6, 12, 24, 16)
    """Of its four dense blocks."""
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    """Channels of the decoder at full resolution; 16 times as many at the lowest."""
    dims: ClassVar[int] = 2

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, STEP)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return ShapeAttentiveModule(self)


class ShapeAttentiveModule(nn.Module):
    """The network that `ShapeAttentive` describes.

    The texture stream answers at a quarter, an eighth, a sixteenth and once more a sixteenth of the resolution.
    """

    def __init__(self, shape: ShapeAttentive) -> None:
        super().__init__()
        width = shape.width
        self.texture = _Texture(shape)
        first, second, third, fourth = self.texture.channels
        self.shape = _Shape(self.texture.channels, width)
        self.edge = nn.Conv2d(2, 1, 1, bias=False)
        self.expand = nn.Sequential(*conv(1, width, kernel=1))
        self.centre = nn.Sequential(nn.MaxPool2d(2), *conv(fourth, 16 * width))
        self.decoder = nn.ModuleList(
            _DualAttention(below, skip, after * width)
            for below, skip, after in (
                (16 * width, fourth, 16),
                (16 * width, third, 8),
                (8 * width, second, 4),
                (4 * width, first, 2),
            )
        )
        inner = 3 * width // 2
        self.up = nn.Sequential(*conv(2 * width, inner), *_doubled(inner, width))
        self.join = nn.Sequential(*conv(2 * width, width))
        self.head = nn.Conv2d(width, shape.classes, 1)
        he_initialised(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        features = self.texture(x_BCHW)
        map_B1HW = self.shape(features, x_BCHW.shape[2:])
        edges_B1HW = self.edge(torch.cat([map_B1HW, _sobel(x_BCHW)], dim=1)).sigmoid()
        *finer, lowest = features
        skips = [*(F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=True) for skip in finer), lowest]
        y_BCHW = self.centre(lowest)
        for block in self.decoder:
            y_BCHW = block(y_BCHW, skips.pop())
        y_BCHW = self.join(torch.cat([self.up(y_BCHW), self.expand(edges_B1HW)], dim=1))
        return self.head(y_BCHW)


class _Texture(nn.Module):
    """What stands after each transition of a DenseNet, and after its last block and norm."""

    def __init__(self, shape: ShapeAttentive) -> None:
        super().__init__()
        from monai.networks.nets import DenseNet

        layers = dict(
            DenseNet(
                spatial_dims=2,
                in_channels=shape.in_channels,
                out_channels=1,
                init_features=shape.stem,
                growth_rate=shape.growth,
                block_config=shape.layers,
            ).features.named_children()
        )
        self.stem = nn.Sequential(layers["conv0"], layers["norm0"])
        self.stages = nn.ModuleList(
            nn.Sequential(layers[f"denseblock{at}"], layers[f"transition{at}" if at < 4 else "norm5"])
            for at in range(1, 5)
        )
        halved = accumulate(
            shape.layers[:3], lambda before, more: (before + more * shape.growth) // 2, initial=shape.stem
        )
        _, *transitions = halved
        self.channels = (*transitions, transitions[-1] + shape.layers[3] * shape.growth)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        x_BCHW = self.stem(x_BCHW)
        features = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            features.append(x_BCHW)
        return features


class _Shape(nn.Module):
    """A map of edges, from 0 to 1 at full size, of the texture stream's features."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        widths = [2 * width, width, width // 2, width // 4]
        self.enter = nn.Conv2d(channels[0], widths[0], 1)
        self.blocks = nn.ModuleList(Basic(before, before) for before in widths[:-1])
        self.narrow = nn.ModuleList(nn.Conv2d(2 * after, after, 1) for after in widths[1:])
        self.texture = nn.ModuleList(nn.Conv2d(each, 1, 1) for each in channels[1:])
        self.gates = nn.ModuleList(_GatedConv(after) for after in widths[1:])
        self.out = nn.Conv2d(widths[-1], 1, 1, bias=False)

    def forward(self, features: list[Tensor], size: torch.Size) -> Tensor:
        first, *others = features
        y_BCHW = _enlarged(self.enter(first), size)
        for index, other in enumerate(others):
            y_BCHW = self.narrow[index](self.blocks[index](y_BCHW))
            y_BCHW = self.gates[index](y_BCHW, _enlarged(self.texture[index](other), size))
        return self.out(y_BCHW).sigmoid()


class _GatedConv(nn.Module):
    """A 1x1 convolution of a shape's features, which one channel of texture has amplified where it agrees."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        both = channels + 1
        self.gate = nn.Sequential(
            nn.BatchNorm2d(both),
            nn.Conv2d(both, both, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(both, 1, 1),
            nn.BatchNorm2d(1),
            nn.Sigmoid(),
        )
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor, texture_B1HW: Tensor) -> Tensor:
        gate_B1HW = self.gate(torch.cat([x_BCHW, texture_B1HW], dim=1))
        return self.conv(x_BCHW * (gate_B1HW + 1))


class _DualAttention(nn.Module):
    """A level of the decoder: what came up and the skip, fused, weighed by channel and by 1 + pixel."""

    def __init__(self, below: int, skip: int, after: int) -> None:
        super().__init__()
        self.up = nn.Sequential(*_doubled(below, below))
        self.fuse = nn.Sequential(*conv(skip + below, after))
        inner = max(1, after // 4)
        self.pixel = nn.Sequential(
            nn.Conv2d(after, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, 1, 1),
            nn.Sigmoid(),
        )
        self.channel = SqueezeExcite(after)

    def forward(self, below_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        fused_BCHW = self.fuse(torch.cat([skip_BCHW, self.up(below_BCHW)], dim=1))
        return (self.pixel(fused_BCHW) + 1) * self.channel(fused_BCHW)


def _doubled(before: int, after: int) -> list[nn.Module]:
    rise = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
    return [rise, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def _enlarged(x_BCHW: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x_BCHW, size=size, mode="bilinear", align_corners=True)


def _sobel(x_BCHW: Tensor) -> Tensor:
    """|dx| + |dy| of the mean channel, B1HW, by Sobel's 3x3 kernels; the border repeats itself."""
    grey = F.pad(x_BCHW.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    down = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    along = grey[..., :-2] + 2 * grey[..., 1:-1] + grey[..., 2:]
    return (down[..., 2:] - down[..., :-2]).abs() + (along[:, :, 2:] - along[:, :, :-2]).abs()
