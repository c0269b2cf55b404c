"""DeepLab v1 (Chen et al. 2015, arXiv 1412.7062, LargeFOV) and v2 (Chen et al. 2016, arXiv 1606.00915)."""

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.aspp import SummedAtrous
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.resnet import Depths, ResNet
from compress.networks.blocks.vgg import vgg16_stages, widths

RATES = 6, 12, 18, 24


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DeepLab:
    """Atrous convolutions at an eighth of the image's resolution, enlarged bilinearly.

    Version 1 is VGG16 whose first fully connected layer is a 3x3 convolution of dilation 12. Version 2 is
    ResNet-101 and four classifiers of dilations 6, 12, 18 and 24, added up (ASPP-L). The dense CRF with which the
    papers refine the logits is compress.postprocess.dense_crf: it is no part of the network, nor of what is exported.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    version: Literal[1, 2] = 2
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first convolution."""
    layers: Depths = (3, 4, 23, 3)
    """Version 2: blocks at each of the four resolutions; 3, 4, 23, 3 is ResNet-101."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return DeepLabModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """None: every (height, width) works; multiples of 8 and one more, such as 321, are enlarged evenly."""
        return None


class DeepLabModule(nn.Module):
    """The network that `DeepLab` describes; logits_BKHW = net(image_BCHW)."""

    def __init__(self, shape: DeepLab) -> None:
        super().__init__()
        if shape.version == 1:
            self.encoder: nn.Module = _large_field_vgg(shape.in_channels, shape.width)
            self.head: nn.Module = nn.Conv2d(16 * shape.width, shape.classes, 1)
        else:
            self.encoder = ResNet(shape.in_channels, shape.layers, width=shape.width, output_stride=8)
            self.head = SummedAtrous(self.encoder.channels[-1], shape.classes, RATES)
        he_initialised(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        features = self.encoder(image_BCHW)
        logits = self.head(features[-1] if isinstance(features, tuple) else features)
        # Corners aligned, as the authors' layer does it: 41 rows become 321.
        return F.interpolate(logits, image_BCHW.shape[2:], mode="bilinear", align_corners=True)


def _large_field_vgg(in_channels: int, width: int) -> nn.Sequential:
    """VGG16 that stays at an eighth of the resolution from its third pooling on."""
    stages = vgg16_stages(in_channels, width, dilations=(1, 1, 1, 1, 2))
    layers: list[nn.Module] = []
    for stage, stride in zip(stages, (2, 2, 2, 1, 1), strict=True):
        layers += [*stage, nn.MaxPool2d(3, stride=stride, padding=1)]  # type: ignore[misc]
    before, hidden = widths(width)[-1], 16 * width
    return nn.Sequential(
        *(*layers, nn.AvgPool2d(3, stride=1, padding=1)),
        *(nn.Conv2d(before, hidden, 3, padding=12, dilation=12), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(nn.Conv2d(hidden, hidden, 1), nn.ReLU(inplace=True), nn.Dropout(0.5)),
    )
