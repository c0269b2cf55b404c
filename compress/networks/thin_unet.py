"""Thin U-Net (Vaze et al. 2020, IEEE J. Biomed. Health Inform. 24(4)): a U-Net of the same few channels on every level.

Its sizes are those of the authors' code, sgvaze/lightweight_unet.
"""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.contracts import multiples
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.u_shape import UShape


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ThinUNet:
    """A thin U-Net: `depth` halvings, `width` channels everywhere, nearest-neighbour up-sampling.

    A block is two 3x3 convolutions, each with a ReLU, and one batch norm behind both. The defaults have
    287,681 parameters for one input channel and one class; 42,410 when separable.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=1)] = 32
    depth: Annotated[int, Field(ge=1, le=8)] = 6
    separable: bool = False
    """Every convolution of the blocks as a depthwise one (no bias) and a pointwise one."""
    dropout: Annotated[tuple[float, float], Field(min_length=2)] = (0.2, 0.5)
    """In training: of the pixels of the input, and of the features of the lowest level."""
    dims: ClassVar[int] = 2

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, 2**self.depth)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        encoder = [self._block(self.width if level else self.in_channels) for level in range(self.depth + 1)]
        encoder[0].insert(0, nn.Dropout(self.dropout[0]))
        encoder[-1].append(nn.Dropout(self.dropout[1]))
        net = UShape(
            encoder=encoder,
            up=[nn.Upsample(scale_factor=2, mode="nearest") for _ in range(self.depth)],
            decoder=[self._block(2 * self.width) for _ in range(self.depth)],
            head=nn.Conv2d(self.width, self.classes, 1),
        )
        he_initialised(net)
        return net

    def _block(self, before: int) -> nn.Sequential:
        # Keras's defaults for the norm, in which the authors trained.
        norm = nn.BatchNorm2d(self.width, eps=1e-3, momentum=0.01)
        return nn.Sequential(*self._conv(before), *self._conv(self.width), norm)

    def _conv(self, before: int) -> list[nn.Module]:
        relu = nn.ReLU(inplace=True)
        if not self.separable:
            return [nn.Conv2d(before, self.width, 3, padding=1), relu]
        depthwise = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False)
        return [depthwise, nn.Conv2d(before, self.width, 1), relu]
