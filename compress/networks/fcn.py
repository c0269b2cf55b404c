"""FCN on VGG16 (Long, Shelhamer and Darrell 2015, arXiv 1411.4038), of strides 32, 16 and 8."""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.vgg import vgg16_stages, widths

PADDING = 100
"""Of the first convolution: after it, fully connected layers written as 7x7 convolutions have room on any image."""
CROPS = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}
"""By stride, where in the finer map, or in the image, each up-sampled map begins."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FCN:
    """VGG16 with its fully connected layers as convolutions, and scores of its third and fourth pooling added."""

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    stride: Literal[32, 16, 8] = 8
    """FCN-32s reads the last scores alone, FCN-16s adds those of the fourth pooling, FCN-8s of the third too."""
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first convolution; the fully connected layers have 64 times as many."""
    up: Literal["transposed", "bilinear"] = "transposed"
    """How scores are enlarged: learned transposed convolutions that begin as bilinear ones and are cropped (the
    paper), or bilinear resizing to the finer map's size, corners aligned (pytorch-semseg)."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return FCNModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """None: every (height, width) works, as the first convolution pads by 100 pixels."""
        return None


class FCNModule(nn.Module):
    """The network that `FCN` describes; logits_BKHW = net(image_BCHW).

    `scores[0]` reads the last layer, `scores[1]` the fourth pooling and `scores[2]` the third; `up` enlarges
    their sums in this order.
    """

    def __init__(self, shape: FCN) -> None:
        super().__init__()
        channels, hidden = widths(shape.width), 64 * shape.width
        self.stages = vgg16_stages(shape.in_channels, shape.width)
        first = self.stages[0][0]  # type: ignore[index]
        first.padding = (PADDING, PADDING)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.hidden = nn.Sequential(
            *(nn.Conv2d(channels[4], hidden, 7), nn.ReLU(inplace=True), nn.Dropout2d()),
            *(nn.Conv2d(hidden, hidden, 1), nn.ReLU(inplace=True), nn.Dropout2d()),
        )
        self.crops = CROPS[shape.stride]
        read = [hidden, channels[3], channels[2]][: len(self.crops)]
        self.scores = nn.ModuleList(nn.Conv2d(before, shape.classes, 1) for before in read)
        he_initialised(self)
        last = shape.stride
        factors = [*(2 for _ in self.crops[1:]), last] if shape.up == "transposed" else []
        self.up = nn.ModuleList(_bilinear(shape.classes, factor) for factor in factors)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        pooled, x_BCHW = [], image_BCHW
        for stage in self.stages:
            x_BCHW = self.pool(stage(x_BCHW))
            pooled.append(x_BCHW)
        read = [self.hidden(x_BCHW), pooled[3], pooled[2]]
        scores = [score(x) for score, x in zip(self.scores, read, strict=False)]
        sums = scores[0]
        for index, finer in enumerate([*scores[1:], image_BCHW]):
            last = index == len(self.crops) - 1
            if not self.up:
                sums = F.interpolate(sums, finer.shape[2:], mode="bilinear", align_corners=True)
                sums = sums if last else sums + finer
            elif last:
                sums = _cropped(self.up[index](sums), self.crops[index], finer)
            else:
                sums = self.up[index](sums)
                sums = sums + _cropped(finer, self.crops[index], sums)
        return sums


def _cropped(x_BCHW: Tensor, start: int, like_BCHW: Tensor) -> Tensor:
    height, width = like_BCHW.shape[2:]
    return x_BCHW[:, :, start : start + height, start : start + width]


def _bilinear(classes: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that enlarges each class alone, until it learns otherwise."""
    up = nn.ConvTranspose2d(classes, classes, 2 * factor, stride=factor, bias=False)
    line = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        up.weight.copy_(torch.eye(classes)[:, :, None, None] * line[:, None] * line)
    return up
