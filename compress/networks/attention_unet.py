"""Attention U-Net (Oktay et al. 2018, arXiv 1804.03999): a U-Net whose skips are gated by what comes up, in 2-D."""

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.contracts import multiples
from compress.networks.blocks.attention_gate import AttentionGate
from compress.networks.blocks.conv import double_conv, up
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.u_shape import UShape


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AttentionUNet:
    """An Attention U-Net: `depth` halvings, `width` channels at full resolution, doubled at every level.

    With batch norms, nearest-neighbour up-sampling and an attention gate on every skip, as in
    LeeJunHyun/Image_Segmentation (34,878,573 parameters for three input channels and one class).
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=2)] = 64
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    dims: ClassVar[int] = 2

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, 2**self.depth)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        widths = [self.width * 2**level for level in range(self.depth + 1)]
        rising = widths[-2::-1]
        net = UShape(
            encoder=[double_conv(before, after) for before, after in pairwise([self.in_channels, *widths])],
            up=[up(2 * width, width, kind="nearest") for width in rising],
            gates=[AttentionGate(width, width, width // 2) for width in rising],
            decoder=[double_conv(2 * width, width) for width in rising],
            head=nn.Conv2d(self.width, self.classes, 1),
        )
        he_initialised(net)
        return net
