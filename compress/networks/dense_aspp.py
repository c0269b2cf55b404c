"""DenseASPP (Yang et al. 2018, CVPR, "DenseASPP for Semantic Segmentation in Street Scenes") on a dilated DenseNet."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.dense_block import BottleneckLayer, DenseBlock
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.resnet import Depths

RATES = 3, 6, 12, 18, 24
DILATIONS = 1, 1, 2, 4
"""Of DenseNet's four blocks, the last two of which keep an eighth of the resolution."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DenseASPP:
    """A DenseNet dilated to an eighth of the resolution, and atrous convolutions that each read all smaller ones.

    The default is on DenseNet-121. On DenseNet-161 it is `growth: 48, layers: [6, 12, 36, 24], hidden: 512,
    features: 128`.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    growth: Annotated[int, Field(ge=1)] = 32
    """Channels that each layer of the DenseNet adds; its first convolution has twice as many."""
    layers: Depths = (6, 12, 24, 16)
    """Layers of each dense block."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Channels before each atrous convolution."""
    features: Annotated[int, Field(ge=1)] = 64
    """Channels that each atrous convolution adds."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return DenseASPPModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, 8)


class DenseASPPModule(nn.Module):
    """The network that `DenseASPP` describes; logits_BKHW = net(image_BCHW)."""

    def __init__(self, shape: DenseASPP) -> None:
        super().__init__()
        self.stem, channels = _stem(shape.in_channels, 2 * shape.growth), 2 * shape.growth
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for index, (depth, dilation) in enumerate(zip(shape.layers, DILATIONS, strict=True)):
            self.blocks.append(DenseBlock(_layers(channels, shape.growth, depth, dilation)))
            channels += depth * shape.growth
            self.transitions.append(_transition(channels, halve=index == 0))
            channels //= 2
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.atrous = DenseBlock(_atrous_layers(channels, shape), newest="first")
        channels += len(RATES) * shape.features
        self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, shape.classes, 1))
        he_initialised(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(image_BCHW)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            x_BCHW = transition(block(x_BCHW))
        logits = self.head(self.atrous(self.norm(x_BCHW)))
        return F.interpolate(logits, image_BCHW.shape[2:], mode="bilinear", align_corners=False)


def _stem(before: int, after: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))


def _layers(before: int, growth: int, depth: int, dilation: int) -> list[nn.Module]:
    widths = range(before, before + depth * growth, growth)
    return [BottleneckLayer(channels, growth, hidden=4 * growth, dilation=dilation) for channels in widths]


def _transition(before: int, *, halve: bool) -> nn.Sequential:
    conv = nn.Conv2d(before, before // 2, 1, bias=False)
    pool = [nn.AvgPool2d(2)] if halve else []
    return nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(inplace=True), conv, *pool)


def _atrous_layers(before: int, shape: DenseASPP) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for index, rate in enumerate(RATES):
        channels = before + index * shape.features
        layers.append(
            nn.Sequential(
                # What the first one reads is normed and rectified already.
                *((nn.BatchNorm2d(channels, momentum=0.0003), nn.ReLU(inplace=True)) if index else ()),
                nn.Conv2d(channels, shape.hidden, 1),
                *(nn.BatchNorm2d(shape.hidden, momentum=0.0003), nn.ReLU(inplace=True)),
                *(nn.Conv2d(shape.hidden, shape.features, 3, padding=rate, dilation=rate), nn.Dropout2d(0.1)),
            )
        )
    return layers
