"""FC-DenseNet, the hundred layers Tiramisu (Jegou et al. 2017, arXiv 1611.09326)."""

from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.dense_block import DenseBlock
from compress.networks.blocks.he import he_initialised


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FCDenseNet:
    """A U-Net of dense blocks, of which only what they add is enlarged on the way up.

    FC-DenseNet56 of the paper is `growth: 12, layers: [4, 4, 4, 4, 4], bottleneck: 4`, FC-DenseNet67
    `layers: [5, 5, 5, 5, 5], bottleneck: 5`, and the default FC-DenseNet103.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 48
    """Channels of the first convolution."""
    growth: Annotated[int, Field(ge=1)] = 16
    """Channels that each layer adds."""
    layers: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=8)] = (4, 5, 7, 10, 12)
    """Layers of each dense block on the way down, and in reverse on the way up; the image is halved after each."""
    bottleneck: Annotated[int, Field(ge=1)] = 15
    """Layers of the block at the lowest resolution."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return FCDenseNetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        least = 2 ** len(self.layers)
        if min(size) >= least:
            return None
        wanted = "x".join(str(max(side, least)) for side in size)
        return f"this network halves {len(self.layers)} times: pad to {wanted} or set data size"


class FCDenseNetModule(nn.Module):
    """The network that `FCDenseNet` describes; logits_BKHW = net(image_BCHW). `up[0]` is the deepest stage."""

    def __init__(self, shape: FCDenseNet) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape.in_channels, shape.width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.enlarge, self.up = nn.ModuleList(), nn.ModuleList()
        channels, skips = shape.width, []
        for depth in shape.layers:
            self.down.append(DenseBlock(_layers(channels, shape.growth, depth)))
            channels += depth * shape.growth
            skips.append(channels)
            self.shrink.append(_shrink(channels))
        self.bottleneck = DenseBlock(_layers(channels, shape.growth, shape.bottleneck), keep="new")
        made = shape.bottleneck * shape.growth
        for depth in reversed(shape.layers):
            self.enlarge.append(nn.ConvTranspose2d(made, made, 3, stride=2))
            channels = made + skips.pop()
            self.up.append(DenseBlock(_layers(channels, shape.growth, depth), keep="new" if skips else "all"))
            made = depth * shape.growth
        self.head = nn.Conv2d(channels + made, shape.classes, 1)
        he_initialised(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(x_BCHW)
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            skips.append(block(x_BCHW))
            x_BCHW = shrink(skips[-1])
        x_BCHW = self.bottleneck(x_BCHW)
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            skip = skips.pop()
            # One row and column more than twice as many: enough for an odd side, and cut off from an even one.
            enlarged = enlarge(x_BCHW)[:, :, : skip.shape[2], : skip.shape[3]]
            x_BCHW = block(torch.cat([enlarged, skip], dim=1))
        return self.head(x_BCHW)


def _layers(before: int, growth: int, depth: int) -> list[nn.Module]:
    return [
        nn.Sequential(
            *(nn.BatchNorm2d(channels), nn.ReLU(inplace=True)),
            *(nn.Conv2d(channels, growth, 3, padding=1), nn.Dropout2d(0.2)),
        )
        for channels in range(before, before + depth * growth, growth)
    ]


def _shrink(channels: int) -> nn.Sequential:
    """Transition down: as many channels, half the resolution."""
    return nn.Sequential(
        *(nn.BatchNorm2d(channels), nn.ReLU(inplace=True)),
        *(nn.Conv2d(channels, channels, 1), nn.Dropout2d(0.2), nn.MaxPool2d(2)),
    )
