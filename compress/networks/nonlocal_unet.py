"""Non-local U-Net: a U-Net with non-local blocks (Wang et al. 2018, arXiv 1711.07971) in its encoder.

As unet_nonlocal_2D of ozan-oktay/Attention-Gated-Networks, the code of Attention U-Net (arXiv 1804.03999).
"""

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.contracts import multiples
from compress.networks.blocks.conv import double_conv
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.nonlocal_attention import NonLocal
from compress.networks.blocks.u_shape import UShape


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NonLocalUNet:
    """A non-local U-Net: `depth` halvings, `width` channels at full resolution, doubled at every level.

    A non-local block stands after each of the first `blocks` poolings, a quarter as wide inside. The
    encoder has batch norms, the decoder 4x4 transposed convolutions and no norms. The defaults have
    2,466,806 parameters for three input channels and two classes ("feature scale 4").
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=4)] = 16
    depth: Annotated[int, Field(ge=2, le=8)] = 4
    blocks: Annotated[int, Field(ge=0)] = 2
    """How many non-local blocks, at half the resolution, at a quarter and so on; no more than `depth` are built."""
    pool: Annotated[int, Field(ge=1)] = 4
    """Pooling of the pixels that others read: their attention costs 1 / pool**2 of the whole."""
    dims: ClassVar[int] = 2

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        step, least = 2**self.depth, self.pool * 2 ** min(self.blocks, self.depth)
        if self.blocks and min(size) < least:
            wanted = "x".join(str(max(-(-side // step), -(-least // step)) * step) for side in size)
            return f"the non-local blocks pool by {self.pool}: pad to {wanted} or set data size"
        return multiples(size, step)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        widths = [self.width * 2**level for level in range(self.depth + 1)]
        encoder = [double_conv(before, after) for before, after in pairwise([self.in_channels, *widths])]
        for level, width in enumerate(widths[: self.depth][: self.blocks], start=1):
            encoder[level] = nn.Sequential(NonLocal(width, width // 4, self.pool), *encoder[level])
        rising = widths[-2::-1]
        net = UShape(
            encoder=encoder,
            up=[nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1) for width in rising],
            decoder=[double_conv(2 * width, width, norm="none") for width in rising],
            head=nn.Conv2d(self.width, self.classes, 1),
        )
        he_initialised(net)
        return net
