"""CE-Net (Gu et al. 2019, arXiv 1903.02740): ResNet-34, dense atrous convolution and residual multi-kernel pooling."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.dense_atrous import DenseAtrous
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.residual_multi_kernel_pooling import ResidualMultiKernelPooling
from compress.networks.blocks.resnet import Depths, ResNet

KERNELS = 2, 3, 5, 6
"""Of the pooling at a thirty-second of the resolution."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CENet:
    """A ResNet-34 with a context extractor, and a decoder that adds the encoder's features."""

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Channels of the first convolution."""
    layers: Depths = (3, 4, 6, 3)
    """Blocks at each of the four resolutions; 3, 4, 6, 3 is ResNet-34."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return CENetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        least = 32 * max(KERNELS)
        if min(size) >= least:
            return multiples(size, 32)
        wanted = "x".join(str(max(-(-side // 32) * 32, least)) for side in size)
        return f"this network pools {max(KERNELS)}x{max(KERNELS)} of its lowest resolution: pad to {wanted}"


class CENetModule(nn.Module):
    """The network that `CENet` describes; logits_BKHW = net(image_BCHW). `decoder[0]` is the deepest block."""

    def __init__(self, shape: CENet) -> None:
        super().__init__()
        self.encoder = ResNet(shape.in_channels, shape.layers, block="basic", width=shape.width)
        first, second, third, fourth = self.encoder.channels
        self.context = nn.Sequential(DenseAtrous(fourth), ResidualMultiKernelPooling(fourth, KERNELS))
        before = [fourth + len(KERNELS), third, second, first]
        self.decoder = nn.ModuleList(map(_decode, before, [third, second, first, first]))
        last = shape.width // 2
        self.head = nn.Sequential(
            *(nn.ConvTranspose2d(first, last, 4, stride=2, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(last, last, 3, padding=1), nn.ReLU(inplace=True)),
            nn.Conv2d(last, shape.classes, 3, padding=1),
        )
        he_initialised(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        first, second, third, fourth = self.encoder(image_BCHW)
        x_BCHW = self.context(fourth)
        for decode, skip in zip(self.decoder, (third, second, first), strict=False):
            x_BCHW = decode(x_BCHW) + skip
        return self.head(self.decoder[-1](x_BCHW))


def _decode(before: int, after: int) -> nn.Sequential:
    """A 3x3 transposed convolution between two 1x1 ones, which doubles the resolution."""
    inside = before // 4
    return nn.Sequential(
        *(nn.Conv2d(before, inside, 1), nn.BatchNorm2d(inside), nn.ReLU(inplace=True)),
        nn.ConvTranspose2d(inside, inside, 3, stride=2, padding=1, output_padding=1),
        *(nn.BatchNorm2d(inside), nn.ReLU(inplace=True)),
        *(nn.Conv2d(inside, after, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)),
    )
