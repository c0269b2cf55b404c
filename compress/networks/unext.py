"""UNeXt (Valanarasu and Patel 2022, arXiv 2203.04967): three levels of convolutions and two of tokenized MLPs."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.tokenized_mlp import ChannelNorm, TokenizedMlp

Width = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UNeXt:
    """A UNeXt: five halvings, skips that are added.

    The authors' network is the default one (1,471,921 parameters for three input channels and one
    class); their small one is `widths: [8, 16, 32, 64, 128]` (253,561).
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    widths: tuple[Width, Width, Width, Width, Width] = (16, 32, 128, 160, 256)
    """Channels after each halving: three levels of convolutions, then two of tokens."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype."""
        return UNeXtModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, 2 ** len(self.widths))


class UNeXtModule(nn.Module):
    """The network that `UNeXt` describes."""

    def __init__(self, shape: UNeXt) -> None:
        super().__init__()
        first, second, third, fourth, fifth = shape.widths
        self.encoder = nn.ModuleList(
            [
                _halving(shape.in_channels, first),
                _halving(first, second),
                _halving(second, third),
                _embedding(third, fourth),
                _embedding(fourth, fifth),
            ]
        )
        self.decoder = nn.ModuleList(
            [_doubling(fifth, fourth), _doubling(fourth, third), _doubling(third, second), _doubling(second, first)]
        )
        self.tokens = nn.ModuleList([_tokens(fourth), _tokens(third), nn.Identity(), nn.Identity()])
        self.last = nn.Sequential(nn.Conv2d(first, first, 3, padding=1), *_twice())
        self.head = nn.Conv2d(first, shape.classes, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        skips = []
        for block in self.encoder:
            x_BCHW = block(x_BCHW)
            skips.append(x_BCHW)
        skips.pop()
        for up, tokens in zip(self.decoder, self.tokens, strict=True):
            x_BCHW = tokens(up(x_BCHW) + skips.pop())
        return self.head(self.last(x_BCHW))


def _halving(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.MaxPool2d(2), nn.ReLU())


def _embedding(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), ChannelNorm(after), *_tokens(after))


def _tokens(channels: int) -> nn.Sequential:
    return nn.Sequential(TokenizedMlp(channels), ChannelNorm(channels))


def _doubling(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), *_twice())


def _twice() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU()]
