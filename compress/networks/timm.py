"""A U-Net (Ronneberger et al. 2015, arXiv 1505.04597) over any encoder of timm (Wightman 2019) with several strides."""

from dataclasses import field
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import RecipeError
from compress.networks.blocks.conv import double_conv
from compress.networks.foreign.adapter import adapted
from compress.networks.foreign.checks import fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.probe import reading_of
from compress.networks.foreign.timm_encoder import timm_encoder


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Timm:
    """An encoder of timm under a decoder of ours: two 3x3 convolutions with batch norm at each of its strides.

    The decoder ends at the encoder's finest stride (2 or 4); from there the logits are resized bilinearly. timm's
    own names of the encoder follow after `encoder.body.`.
    """

    encoder: str
    """As `timm.list_models()` names it: resnet50, pvt_v2_b2, convnext_tiny, ..."""
    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of the decoder at its finest stride, doubled at every coarser one, up to 256."""
    options: dict[str, Any] = field(default_factory=dict)
    """What timm's constructor of this encoder takes: drop_path_rate, output_stride, img_size, ..."""
    input: tuple[int, int] | None = None
    """Height and width, for an encoder that takes only one size."""
    dims: ClassVar[int] = 2
    head: ClassVar[Head] = Head(activation="none")

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW)."""
        return adapted(self)

    def check(self) -> None:
        """Whether timm has the encoder, with features at several strides.

        Raises:
            MissingExtra: if timm or torchvision is not installed.
            SegpressError: naming what is wrong.
        """
        reading_of(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return fault_of(self, size)

    def unwrapped(self) -> nn.Module:
        """The network itself."""
        return TimmModule(self)


class TimmModule(nn.Module):
    """The network that `Timm` describes; logits_BKHW = net(image_BCHW)."""

    def __init__(self, shape: Timm) -> None:
        super().__init__()
        self.encoder = timm_encoder(shape.encoder, shape.in_channels, **shape.options)
        strides, channels = self.encoder.strides, self.encoder.channels
        if len(strides) < 2 or any(fine >= coarse for fine, coarse in pairwise(strides)):
            raise RecipeError(
                "encoder",
                [f"{shape.encoder} has features at strides {list(strides)}, and a U-Net needs strides that grow"],
            )
        widths = [min(256, shape.width * 2**level) for level in range(len(strides) - 1)]
        self.decoder = nn.ModuleList(
            double_conv(below + skip, width)
            for below, skip, width in zip([*widths[1:], channels[-1]], channels[:-1], widths, strict=True)
        )
        """One block a stride, the finest first."""
        self.head = nn.Conv2d(widths[0], shape.classes, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        *skips, x_BCHW = self.encoder(image_BCHW)
        for block, skip_BCHW in zip(reversed(self.decoder), reversed(skips), strict=True):
            x_BCHW = F.interpolate(x_BCHW, size=skip_BCHW.shape[2:], mode="nearest")
            x_BCHW = block(torch.cat([skip_BCHW, x_BCHW], dim=1))
        return F.interpolate(self.head(x_BCHW), size=image_BCHW.shape[2:], mode="bilinear", align_corners=False)
