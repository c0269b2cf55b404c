"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597), padded or in its original unpadded form."""

from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import Norm, Up, double_conv, up
from compress.networks.blocks.he import he_initialised


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UNet:
    """A U-Net: `depth` halvings, `width` channels at full resolution, doubled at every level.

    The original is `width: 64, depth: 4, norm: none, padded: false` (31,030,658 parameters for one
    input channel and two classes; 572x572 in, 388x388 out).
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=1)] = 64
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    norm: Norm = "batch"
    up: Up = "transposed"
    """How the decoder doubles the resolution: a 2x2 transposed convolution (the paper), or
    nearest-neighbour up-sampling followed by a 3x3 convolution."""
    dims: ClassVar[int] = 2
    padded: bool = True
    """False leaves every 3x3 convolution unpadded and crops the skips, as in the paper."""

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype."""
        return UNetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        step = 2**self.depth
        if self.padded:
            if self.norm == "instance" and set(size) == {step}:
                return (
                    f"instance norm needs more than one pixel at depth {self.depth}: set data size or a smaller depth"
                )
            return multiples(size, step)
        wrong = [side for side in size if not self._unpadded_fits(side)]
        if not wrong:
            return None
        best = " or ".join(str(side) for side in self._unpadded_sizes(wrong[0]))
        return f"this unpadded network halves evenly only at certain sizes: {best} would fit instead of {wrong[0]}"

    def _unpadded_fits(self, side: int) -> bool:
        for _ in range(self.depth):
            side -= 4
            if side <= 0 or side % 2:
                return False
            side //= 2
        # The decoder must still have pixels left after two unpadded convolutions a level.
        side -= 4
        for _ in range(self.depth):
            side = side * 2 - 4
        return side > 0

    def _unpadded_sizes(self, near: int) -> list[int]:
        below = next((side for side in range(near, 0, -1) if self._unpadded_fits(side)), None)
        above = next(side for side in range(near, near + 100_000) if self._unpadded_fits(side))
        return [above] if below is None else [below, above]


class UNetModule(nn.Module):
    """The network that `UNet` describes; logits_BCHW = net(image_BCHW)."""

    def __init__(self, shape: UNet) -> None:
        super().__init__()
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        self.encoder = nn.ModuleList(
            double_conv(before, after, norm=shape.norm, padded=shape.padded)
            for before, after in zip([shape.in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            up(widths[level], widths[level - 1], kind=shape.up, norm=shape.norm) for level in range(shape.depth, 0, -1)
        )
        self.decoder = nn.ModuleList(
            double_conv(2 * widths[level], widths[level], norm=shape.norm, padded=shape.padded)
            for level in reversed(range(shape.depth))
        )
        self.head = nn.Conv2d(shape.width, shape.classes, 1)
        self.padded = shape.padded
        # Section 3 of the paper.
        he_initialised(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.encoder):
            x_BCHW = block(x_BCHW if level == 0 else self.pool(x_BCHW))
            skips.append(x_BCHW)
        x_BCHW = skips.pop()
        for rise, block in zip(self.up, self.decoder, strict=True):
            x_BCHW = rise(x_BCHW)
            skip = skips.pop()
            if not self.padded:
                skip = _centre_crop(skip, x_BCHW)
            x_BCHW = block(torch.cat([skip, x_BCHW], dim=1))
        return self.head(x_BCHW)


def _centre_crop(skip_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    top = (skip_BCHW.shape[-2] - like_BCHW.shape[-2]) // 2
    left = (skip_BCHW.shape[-1] - like_BCHW.shape[-1]) // 2
    return skip_BCHW[..., top : top + like_BCHW.shape[-2], left : left + like_BCHW.shape[-1]]
