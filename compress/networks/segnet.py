"""SegNet (Badrinarayanan, Kendall and Cipolla 2017, arXiv 1511.00561): VGG16 and its mirror, which unpools."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.unpooling import pooled, unpooled
from compress.networks.blocks.vgg import DEPTHS, conv, vgg16_stages, widths


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SegNet:
    """The 13 convolutions of VGG16, and 13 that bring each maximum back to where it was."""

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first convolution."""
    last: Literal["conv", "conv_norm_relu"] = "conv"
    """What gives the logits: a convolution (the paper), or one with batch norm and ReLU behind it (pytorch-semseg
    and NasUnet), whose logits are never negative."""
    dims: ClassVar[int] = 2

    @model_validator(mode="after")
    def _check_sign(self) -> Self:
        if self.classes == 1 and self.last == "conv_norm_relu":
            raise ValueError("a single sigmoid logit behind a ReLU is never negative: set last to conv, or 2 classes")
        return self

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), any floating dtype."""
        return SegNetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        if min(size) >= 32:
            return None
        wanted = "x".join(str(max(side, 32)) for side in size)
        return f"this network halves five times: pad to {wanted} or set data size"


class SegNetModule(nn.Module):
    """The network that `SegNet` describes; logits_BKHW = net(image_BCHW). `decoder[0]` is the deepest stage."""

    def __init__(self, shape: SegNet) -> None:
        super().__init__()
        channels = widths(shape.width)
        self.encoder = vgg16_stages(shape.in_channels, shape.width, norm=True)
        self.decoder = nn.ModuleList()
        for stage in range(4, -1, -1):
            after = channels[stage - 1] if stage else shape.classes
            self.decoder.append(_stage(channels[stage], after, DEPTHS[stage]))
        if shape.last == "conv":
            self.decoder[-1] = self.decoder[-1][:-2]  # type: ignore[index]
        he_initialised(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        places = []
        for stage in self.encoder:
            x_BCHW, where = pooled(stage(x_BCHW))
            places.append(where)
        for stage in self.decoder:
            x_BCHW = stage(unpooled(x_BCHW, places.pop()))
        return x_BCHW


def _stage(before: int, after: int, depth: int) -> nn.Sequential:
    layers = [layer for _ in range(depth - 1) for layer in conv(before, before, norm=True)]
    return nn.Sequential(*layers, *conv(before, after, norm=True))
