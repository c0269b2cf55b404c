"""R2U-Net (Alom et al. 2018, arXiv 1802.06955): a U-Net of recurrent residual blocks, with attention gates if asked."""

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.contracts import multiples
from compress.networks.blocks.attention_gate import AttentionGate
from compress.networks.blocks.conv import up
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.recurrent import RecurrentResidual
from compress.networks.blocks.u_shape import UShape


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class R2UNet:
    """An R2U-Net: `depth` halvings, `width` channels at full resolution, doubled at every level.

    With batch norms and nearest-neighbour up-sampling, as in LeeJunHyun/Image_Segmentation
    (39,091,393 parameters for three input channels and one class; 39,442,925 with attention).
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=2)] = 64
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    t: Annotated[int, Field(ge=1)] = 2
    """How often each convolution reads its own answer: it is computed 1 + t times with the same weights."""
    attention: bool = False
    """An attention gate (Oktay et al. 2018) on every skip: R2-Attention U-Net."""
    dims: ClassVar[int] = 2

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, 2**self.depth)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        widths = [self.width * 2**level for level in range(self.depth + 1)]
        rising = widths[-2::-1]
        net = UShape(
            encoder=[
                RecurrentResidual(before, after, self.t) for before, after in pairwise([self.in_channels, *widths])
            ],
            up=[up(2 * width, width, kind="nearest") for width in rising],
            gates=[AttentionGate(width, width, width // 2) for width in rising] if self.attention else [],
            decoder=[RecurrentResidual(2 * width, width, self.t) for width in rising],
            head=nn.Conv2d(self.width, self.classes, 1),
        )
        he_initialised(net)
        return net
