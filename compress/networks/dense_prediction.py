"""A dense prediction cell in the place of ASPP (Chen et al. 2018, "Searching for Efficient Multi-Scale Architectures
for Dense Image Prediction", arXiv 1809.04184).
"""

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.dense_prediction_cell import PUBLISHED, Cell, DensePredictionCell, conv_norm_relu
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.resnet import Depths, ResNet


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DensePrediction:
    """A dilated ResNet, a dense prediction cell, and one classifier whose logits are enlarged bilinearly.

    DeepLabv3 with the cell in the place of its pyramid; without the decoder of DeepLabv3+. Each branch of the cell,
    and what their answers are brought together to, has four times `width` channels: 256 in the paper.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first convolution."""
    layers: Depths = (3, 4, 23, 3)
    """Blocks at each of the four resolutions; 3, 4, 23, 3 is ResNet-101."""
    output_stride: Literal[8, 16, 32] = 16
    """Of the features that the cell is given. Rates are in their pixels: at 8 those for 16 are doubled."""
    cell: Cell = PUBLISHED
    """Branches, such as `[{rate: [1, 6]}, {reads: 1, grid: [2, 4]}, {reads: 1}]`; by default the released cell."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return DensePredictionModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """None: every (height, width) works; grids are cheap to export where they divide the features evenly."""
        return None


class DensePredictionModule(nn.Module):
    """The network that `DensePrediction` describes; logits_BKHW = net(image_BCHW)."""

    def __init__(self, shape: DensePrediction) -> None:
        super().__init__()
        width = 4 * shape.width
        self.encoder = ResNet(shape.in_channels, shape.layers, width=shape.width, output_stride=shape.output_stride)
        self.cell = DensePredictionCell(shape.cell, self.encoder.channels[-1], width)
        self.projection = nn.Sequential(nn.Dropout(0.1), *conv_norm_relu(self.cell.channels, width, 1))
        self.head = nn.Conv2d(width, shape.classes, 1)
        he_initialised(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logits = self.head(self.projection(self.cell(self.encoder(image_BCHW)[-1])))
        return F.interpolate(logits, image_BCHW.shape[2:], mode="bilinear", align_corners=True)
