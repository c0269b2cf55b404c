"""RefineNet (Lin et al. 2017, arXiv 1611.06612): four cascaded blocks refine a ResNet's answers, deepest first."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.chained_pooling import ChainedPooling
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.resnet import Depths, ResNet


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RefineNet:
    """A ResNet and, for each of its resolutions, residual units, fusion with the coarser one and chained pooling.

    The logits of a quarter of the resolution are enlarged bilinearly.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first convolution; a refining block has four times as many, and the deepest eight times."""
    layers: Depths = (3, 4, 23, 3)
    """Blocks at each of the four resolutions; 3, 4, 23, 3 is ResNet-101, and 3, 4, 6, 3 ResNet-50."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return RefineNetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """None: every (height, width) works."""
        return None


class RefineNetModule(nn.Module):
    """The network that `RefineNet` describes; logits_BKHW = net(image_BCHW). `refine[0]` is the deepest block."""

    def __init__(self, shape: RefineNet) -> None:
        super().__init__()
        self.encoder = ResNet(shape.in_channels, shape.layers, width=shape.width)
        finer = 4 * shape.width
        *others, deepest = self.encoder.channels
        self.refine = nn.ModuleList([Refine(deepest, 2 * finer, finer, alone=True)])
        for channels in reversed(others):
            self.refine.append(Refine(channels, finer, None if channels == others[0] else finer))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Conv2d(finer, shape.classes, 3, padding=1)
        he_initialised(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        first, second, third, fourth = self.encoder(image_BCHW)
        refined = None
        for block, features in zip(
            self.refine, (self.dropout(fourth), self.dropout(third), second, first), strict=True
        ):
            refined = block(features, refined)
        logits = self.head(self.dropout(refined))
        return F.interpolate(logits, image_BCHW.shape[2:], mode="bilinear", align_corners=False)


class Refine(nn.Module):
    """One RefineNet block: the encoder's features adapted, the coarser answer added, pooled in chains, and reduced."""

    def __init__(self, before: int, channels: int, after: int | None, *, alone: bool = False) -> None:
        """Build the block.

        Args:
            before: channels of the encoder's features.
            channels: inside, and of the coarser answer.
            after: of the answer; None leaves `channels` and the last convolution out.
            alone: there is no coarser answer, and so no convolution before the sum.
        """
        super().__init__()
        self.reduce = _conv3x3(before, channels)
        self.adapt = nn.Sequential(*(ResidualUnit(channels) for _ in range(2)))
        self.fuse = nn.Identity() if alone else _conv3x3(channels, channels)
        self.pool = ChainedPooling(channels)
        self.refine = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))
        self.narrow = nn.Identity() if after is None else _conv3x3(channels, after)

    def forward(self, features_BCHW: Tensor, coarser_BChw: Tensor | None) -> Tensor:
        x_BCHW = self.fuse(self.adapt(self.reduce(features_BCHW)))
        if coarser_BChw is not None:
            x_BCHW = x_BCHW + F.interpolate(coarser_BChw, x_BCHW.shape[2:], mode="bilinear", align_corners=True)
        return self.narrow(self.refine(self.pool(x_BCHW)))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each behind a ReLU, and the input; no batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = _conv3x3(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.second(self.relu(self.first(self.relu(x_BCHW))))


def _conv3x3(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, bias=False)
