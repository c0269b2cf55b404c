"""Multi-scale guided attention (Sinha and Dolz 2020, arXiv 1906.02849): attention on four levels of an encoder."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import double_conv
from compress.networks.blocks.dual_attention import ChannelAttention, PositionAttention
from compress.networks.foreign.timm_encoder import timm_encoder

STRIDES = (4, 8, 16, 32)
# The autoencoders halve the finest features twice more.
STEP = 4 * STRIDES[0]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MultiScaleAttention:
    """Guided attention on all four levels of an encoder; the authors' is resnext101_32x8d with `width: 64`.

    Every level is brought to a quarter of the resolution and refined twice, each time by position and
    channel attention (Fu et al. 2019) under the guidance of an autoencoder that the levels share. The
    answer is the mean of four heads on the refined levels. In training a second one follows, the mean of
    four heads on the levels before attention; the authors weigh the eight heads apart.

    Two things of the authors' code are not here: layers that it builds and never calls (955,412 parameters),
    and the losses that pull the two autoencoders together, which want more than logits and masks.

    Position attention compares all pixels at a quarter of the resolution: its memory grows with the fourth
    power of the input's side.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    encoder: str = "resnext101_32x8d"
    """Any encoder of timm with features at strides 4, 8, 16 and 32."""
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of every level after the encoder."""
    dims: ClassVar[int] = 2

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, STEP)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype.

        Raises:
            MissingExtra: if timm is not installed.
            SegpressError: if timm has no such encoder, or it has other strides.
        """
        return MultiScaleAttentionModule(self)


class MultiScaleAttentionModule(nn.Module):
    """The network that `MultiScaleAttention` describes; levels are numbered from the finest, 0, to the coarsest, 3."""

    def __init__(self, shape: MultiScaleAttention) -> None:
        super().__init__()
        width = shape.width
        self.encoder = timm_encoder(shape.encoder, shape.in_channels, STRIDES)
        self.narrow = nn.ModuleList(nn.Sequential(*_conv(channels, width, 1)) for channels in self.encoder.channels)
        self.fuse = nn.Sequential(*_conv(4 * width, width, 3), *_conv(width, width, 3), *_conv(width, width, 1))
        self.guides = nn.ModuleList(_Autoencoder(2 * width) for _ in range(2))
        self.attend = nn.ModuleList(_GuidedAttention(width) for _ in STRIDES)
        self.refine = nn.ModuleList(_GuidedAttention(width) for _ in STRIDES)
        self.early_heads = nn.ModuleList(nn.Conv2d(width, shape.classes, 1) for _ in STRIDES)
        self.heads = nn.ModuleList(nn.Conv2d(width, shape.classes, 1) for _ in STRIDES)

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        levels = [narrow(features) for narrow, features in zip(self.narrow, self.encoder(x_BCHW), strict=True)]
        levels = [_resized(level, levels[0]) for level in levels]
        fused = self.fuse(torch.cat(levels[::-1], dim=1))
        refined = [self._refined(index, level, fused) for index, level in enumerate(levels)]
        logits_BKHW = _resized(_mean(self.heads, refined), x_BCHW)
        if self.training:
            return logits_BKHW, _resized(_mean(self.early_heads, levels), x_BCHW)
        return logits_BKHW

    def _refined(self, place: int, level_BCHW: Tensor, fused_BCHW: Tensor) -> Tensor:
        both = torch.cat([level_BCHW, fused_BCHW], dim=1)
        attention_BCHW = self.attend[place](both, self.guides[0](both))
        both = torch.cat([level_BCHW, attention_BCHW * fused_BCHW], dim=1)
        return self.refine[place](both, self.guides[1](both))


class _GuidedAttention(nn.Module):
    """Position plus channel attention of a level beside the fused features, times what the guide makes of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position = nn.Sequential(*_conv(2 * width, width, 3), PositionAttention(width), *_conv(width, width, 3))
        self.channel = nn.Sequential(*_conv(2 * width, width, 3), ChannelAttention(), *_conv(width, width, 3))
        self.guide = nn.Conv2d(2 * width, width, 3, padding=1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, both_BCHW: Tensor, guide_BCHW: Tensor) -> Tensor:
        return self.out((self.position(both_BCHW) + self.channel(both_BCHW)) * self.guide(guide_BCHW))


class _Autoencoder(nn.Module):
    """Halves twice, doubling the channels, and comes back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            double_conv(width, 2 * width), nn.MaxPool2d(2), double_conv(2 * width, 4 * width), nn.MaxPool2d(2)
        )
        self.decode = nn.Sequential(
            double_conv(4 * width, 2 * width),
            nn.ConvTranspose2d(2 * width, 2 * width, 2, stride=2),
            double_conv(2 * width, width),
            nn.ConvTranspose2d(width, width, 2, stride=2),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.decode(self.encode(x_BCHW))


def _conv(before: int, after: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after), nn.PReLU()]


def _mean(heads: nn.ModuleList, levels: list[Tensor]) -> Tensor:
    logits = [head(level) for head, level in zip(heads, levels, strict=True)]
    return torch.stack(logits).mean(dim=0)


def _resized(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    return F.interpolate(x_BCHW, size=like_BCHW.shape[2:], mode="bilinear")
