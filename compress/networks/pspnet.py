"""PSPNet (Zhao et al. 2017, arXiv 1612.01105): pyramid pooling on a dilated ResNet."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.pyramid_pooling import PyramidPooling
from compress.networks.blocks.resnet import Depths, ResNet


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PSPNet:
    """A ResNet with a stem of three convolutions, dilated to an eighth of the resolution, and pyramid pooling.

    In training it answers with two sets of logits at full size: its own, and those of a second head on the third
    stage (weighted 0.4 in the paper). In evaluation it answers with its own.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first convolution."""
    layers: Depths = (3, 4, 23, 3)
    """Blocks at each of the four resolutions; 3, 4, 23, 3 is ResNet-101, and 3, 4, 6, 3 ResNet-50."""
    auxiliary: bool = True
    """The second head, which only training asks."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return PSPNetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """None: every (height, width) works; 48n - 7 to 48n, such as 473 and 713, are divided into equal parts."""
        return None


class PSPNetModule(nn.Module):
    """The network that `PSPNet` describes; logits_BKHW = net(image_BCHW), or in training a tuple of them."""

    def __init__(self, shape: PSPNet) -> None:
        super().__init__()
        self.encoder = ResNet(shape.in_channels, shape.layers, width=shape.width, output_stride=8, deep_stem=True)
        third, fourth = self.encoder.channels[2:]
        self.pyramid = PyramidPooling(fourth)
        self.head = _head(2 * fourth, 8 * shape.width, shape.classes)
        self.auxiliary = _head(third, 4 * shape.width, shape.classes) if shape.auxiliary else None
        he_initialised(self)

    def forward(self, image_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        size = image_BCHW.shape[2:]
        *_, third, fourth = self.encoder(image_BCHW)
        logits = _enlarged(self.head(self.pyramid(fourth)), size)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, _enlarged(self.auxiliary(third), size)


def _head(before: int, hidden: int, classes: int) -> nn.Sequential:
    conv = nn.Conv2d(before, hidden, 3, padding=1, bias=False)
    return nn.Sequential(
        *(conv, nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Dropout2d(0.1)), nn.Conv2d(hidden, classes, 1)
    )


def _enlarged(logits_BKhw: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(logits_BKhw, size, mode="bilinear", align_corners=True)
