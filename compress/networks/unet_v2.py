"""U-Net v2 (Peng et al. 2023, arXiv 2311.17791): an encoder of timm whose levels are all infused into each skip."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.cbam import ChannelGate, SpatialGate
from compress.networks.blocks.sdi import SDI
from compress.networks.foreign.timm_encoder import timm_encoder

STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UNetV2:
    """A U-Net v2: the authors' is `encoder: pvt_v2_b2, width: 32` (25,145,036 parameters for one class).

    In training it answers with the logits of all four levels, the finest first, all at full size
    (the authors train on the two finest). In evaluation with those of the finest level alone.

    The authors build one transposed convolution more than they use; it is built here too (`unused`), so that
    a network has their number of parameters, and no gradient ever reaches it.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    encoder: str = "pvt_v2_b2"
    """Any encoder of timm with features at strides 4, 8, 16 and 32."""
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of every level of the decoder."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Chance, in training, that the encoder's last block is left out for an image; earlier blocks less."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype.

        Raises:
            MissingExtra: if timm is not installed.
            SegpressError: if timm has no such encoder, or it has other strides.
        """
        return UNetV2Module(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, STRIDES[-1])


class UNetV2Module(nn.Module):
    """The network that `UNetV2` describes; levels are numbered from the finest, 0, to the coarsest, 3."""

    def __init__(self, shape: UNetV2) -> None:
        super().__init__()
        self.encoder = timm_encoder(shape.encoder, shape.in_channels, STRIDES, drop_path_rate=shape.drop_path)
        self.gates = nn.ModuleList(_gate(channels, shape.width) for channels in self.encoder.channels)
        self.infuse = nn.ModuleList(SDI(shape.width, len(STRIDES)) for _ in STRIDES)
        self.up = nn.ModuleList(_doubling(shape.width) for _ in STRIDES[1:])
        self.unused = _doubling(shape.width)
        self.heads = nn.ModuleList(nn.Conv2d(shape.width, shape.classes, 1) for _ in STRIDES)

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        levels = [gate(feature) for gate, feature in zip(self.gates, self.encoder(x_BCHW), strict=True)]
        skips = [infuse(levels, at) for at, infuse in enumerate(self.infuse)]
        decoded = [skips.pop()]
        for up in self.up:
            decoded.insert(0, up(decoded[0]) + skips.pop())
        if not self.training:
            return _enlarged(self.heads[0](decoded[0]), STRIDES[0])
        return tuple(
            _enlarged(head(level), stride) for head, level, stride in zip(self.heads, decoded, STRIDES, strict=True)
        )


def _gate(before: int, after: int) -> nn.Sequential:
    reduced = nn.Conv2d(before, after, 1, bias=False)
    return nn.Sequential(ChannelGate(before), SpatialGate(), reduced, nn.BatchNorm2d(after))


def _doubling(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False)


def _enlarged(logits_BKHW: Tensor, times: int) -> Tensor:
    return F.interpolate(logits_BKHW, scale_factor=times, mode="bilinear")
