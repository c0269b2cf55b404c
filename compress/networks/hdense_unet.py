"""H-DenseUNet's 2-D part (Li et al. 2018, arXiv 1709.07330): a DenseNet-161 whose decoder adds its skips."""

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import conv
from compress.networks.blocks.dense_block import DenseBlock
from compress.networks.blocks.he import he_initialised

Count = Annotated[int, Field(ge=1)]
EPS = 1.1e-5
"""Of the encoder's norms, in the authors' weights."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class HDenseUNet:
    """The 2-D DenseUNet-167: five halvings, nearest-neighbour up-sampling, one 3x3 convolution a level.

    The authors' network, with the scales that their weights hold beside each norm of the encoder, is
    `scales: true` (49,747,779 parameters for three input channels, three slices side by side, and
    three classes: background, liver and tumour). A norm can say by itself what the two say together:
    without them a network of 219,936 parameters fewer computes all that it could.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Count = 3
    layers: tuple[Count, Count, Count, Count] = (6, 12, 36, 24)
    """Of each dense block."""
    growth: Count = 48
    """Channels that a layer of a dense block adds; the stem has twice as many."""
    last_width: Count = 64
    """Channels at full resolution."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Before the last norm, in training."""
    scales: bool = False
    """A factor and a shift for each channel behind each norm of the encoder."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype."""
        return HDenseUNetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, 32)


class HDenseUNetModule(nn.Module):
    """The network that `HDenseUNet` describes; levels are numbered from half the resolution on."""

    def __init__(self, shape: HDenseUNet) -> None:
        super().__init__()
        channels = 2 * shape.growth
        self.stem = nn.Sequential(
            nn.Conv2d(shape.in_channels, channels, 7, stride=2, padding=3, bias=False), *_rectified(channels, shape)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        skips, self.blocks, self.transitions = [channels], nn.ModuleList(), nn.ModuleList()
        for layers in shape.layers:
            self.blocks.append(DenseBlock(_layer(channels + at * shape.growth, shape) for at in range(layers)))
            channels += layers * shape.growth
            skips.append(channels)
            if len(self.blocks) < len(shape.layers):
                self.transitions.append(_transition(channels, shape))
                channels //= 2
        self.last = nn.Sequential(*_rectified(channels, shape))
        self.lateral = nn.Conv2d(skips[3], channels, 1)
        self.up = nn.Upsample(scale_factor=2)
        decoded = [channels, skips[2], skips[1], skips[0], skips[0]]
        self.decoder = nn.ModuleList(nn.Sequential(*conv(*pair)) for pair in pairwise(decoded))
        full, *rest = conv(skips[0], shape.last_width)
        self.full = nn.Sequential(full, nn.Dropout(shape.dropout), *rest)
        self.head = nn.Conv2d(shape.last_width, shape.classes, 1)
        he_initialised(self)
        _scales_of_one(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        skips = [self.stem(x_BCHW)]
        x_BCHW = self.pool(skips[0])
        for block, transition in zip(self.blocks, [*self.transitions, self.last], strict=True):
            skips.append(block(x_BCHW))
            x_BCHW = transition(skips[-1])
        skips[3] = self.lateral(skips[3])
        for block, skip in zip(self.decoder, skips[3::-1], strict=True):
            x_BCHW = block(self.up(x_BCHW) + skip)
        return self.head(self.full(self.up(x_BCHW)))


def _layer(before: int, shape: HDenseUNet) -> nn.Sequential:
    hidden = 4 * shape.growth
    return nn.Sequential(
        *_rectified(before, shape),
        nn.Conv2d(before, hidden, 1, bias=False),
        *_rectified(hidden, shape),
        nn.Conv2d(hidden, shape.growth, 3, padding=1, bias=False),
    )


def _transition(channels: int, shape: HDenseUNet) -> nn.Sequential:
    reduced = nn.Conv2d(channels, channels // 2, 1, bias=False)
    return nn.Sequential(*_rectified(channels, shape), reduced, nn.AvgPool2d(2))


def _rectified(channels: int, shape: HDenseUNet) -> list[nn.Module]:
    # Every pass knows a 1x1 depthwise convolution; a scale of our own none would.
    scale = [nn.Conv2d(channels, channels, 1, groups=channels)] if shape.scales else []
    return [nn.BatchNorm2d(channels, eps=EPS), *scale, nn.ReLU(inplace=True)]


def _scales_of_one(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            nn.init.ones_(module.weight)
