"""Partially reversible 3-D U-Net (Bruegger et al. 2019, arXiv 1906.06148): trained without most of its activations."""

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.reversible import Reversible, ReversibleSequence


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ReversibleUNet3D:
    """A lean 3-D U-Net of group norms and leaky ReLUs, whose skips are added.

    The authors' reversible network is the default, for four channels and three classes 12,365,283
    parameters; what they compare it with is `widths: [30, 60, 120, 240, 480], reversible: false`.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=9)] = (
        60,
        120,
        240,
        360,
        480,
    )
    """Channels of each level, full resolution first, each level half as large as the one before."""
    groups: Annotated[int, Field(ge=1)] = 30
    """Of every group norm; they divide each width, or half of it where reversible."""
    reversible: bool = True
    """Levels are additive couplings, which training runs backwards instead of keeping what they read: the memory
    of a level does not grow with `blocks`. False: pairs of convolutions, each with its norm."""
    blocks: Annotated[int, Field(ge=1, le=16)] = 1
    """Reversible blocks of each level on the way down; on the way up there is one."""
    dims: ClassVar[int] = 3

    def __post_init__(self) -> None:
        for width in self.widths:
            if width % (2 * self.groups if self.reversible else self.groups):
                of = "twice the groups" if self.reversible else "the groups"
                raise ValueError(f"width {width} is no multiple of {of} ({self.groups}); change widths or groups")
        if self.blocks > 1 and not self.reversible:
            raise ValueError("blocks is for reversible levels: set reversible, or leave blocks at 1")

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCDHW = net(image_BCDHW), any floating dtype."""
        return ReversibleUNet3DModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (depth, height, width), and what would be right; None if nothing."""
        step = 2 ** (len(self.widths) - 1)
        normed = self.widths[-1] // 2 if self.reversible else self.widths[-1]
        if set(size) == {step} and normed == self.groups:
            larger = f"{step}x{step}x{2 * step}"
            return f"a group of one channel needs more than one voxel at the deepest level: pad to {larger}"
        return multiples(size, step)


class ReversibleUNet3DModule(nn.Module):
    """The network that `ReversibleUNet3D` describes; logits_BCDHW = net(image_BCDHW)."""

    def __init__(self, shape: ReversibleUNet3D) -> None:
        super().__init__()
        widths, levels = shape.widths, list(pairwise(shape.widths))
        self.first = nn.Sequential(*_enter(shape))
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.MaxPool3d(2), *_down(before, after, deepest, shape))
            for deepest, (before, after) in zip([*[False] * (len(levels) - 1), True], levels, strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(*_up(below, width, deepest, shape), nn.Upsample(scale_factor=2.0, mode="trilinear"))
            for deepest, (width, below) in zip([True, *[False] * (len(levels) - 1)], levels[::-1], strict=True)
        )
        self.last = nn.Sequential(*_leave(shape))
        self.head = nn.Conv3d(widths[0], shape.classes, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        skips = [self.first(x_BCDHW)]
        for level in self.encoder:
            skips.append(level(skips[-1]))
        x_BCDHW = skips.pop()
        for level in self.decoder:
            x_BCDHW = level(x_BCDHW) + skips.pop()
        return self.head(self.last(x_BCDHW))


def _enter(shape: ReversibleUNet3D) -> list[nn.Module]:
    width = shape.widths[0]
    if shape.reversible:
        return [_conv(shape.in_channels, width), _reversible(width, shape.blocks, shape)]
    return [*_block(shape.in_channels, width, shape), *_block(width, width, shape)]


def _down(before: int, after: int, deepest: bool, shape: ReversibleUNet3D) -> list[nn.Module]:
    if shape.reversible:
        return [nn.Conv3d(before, after, 1), _reversible(after, shape.blocks, shape)]
    # The deepest level has one convolution on the way down, and one on the way up.
    return [*_block(before, after, shape), *([] if deepest else _block(after, after, shape))]


def _up(before: int, after: int, deepest: bool, shape: ReversibleUNet3D) -> list[nn.Module]:
    if shape.reversible:
        return [_reversible(before, 1, shape), nn.Conv3d(before, after, 1)]
    return [*([] if deepest else _block(before, before, shape)), *_block(before, after, shape)]


def _leave(shape: ReversibleUNet3D) -> list[nn.Module]:
    width = shape.widths[0]
    if shape.reversible:
        return [_reversible(width, 1, shape)]
    return [*_block(width, width, shape), *_block(width, width, shape)]


def _reversible(channels: int, blocks: int, shape: ReversibleUNet3D) -> nn.Module:
    half = channels // 2
    return ReversibleSequence(Reversible(_inner(half, shape), _inner(half, shape)) for _ in range(blocks))


def _inner(channels: int, shape: ReversibleUNet3D) -> nn.Module:
    return nn.Sequential(nn.GroupNorm(shape.groups, channels), nn.LeakyReLU(inplace=True), _conv(channels, channels))


def _block(before: int, after: int, shape: ReversibleUNet3D) -> list[nn.Module]:
    return [_conv(before, after), nn.GroupNorm(shape.groups, after), nn.LeakyReLU(inplace=True)]


def _conv(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, 3, padding=1, bias=False)
