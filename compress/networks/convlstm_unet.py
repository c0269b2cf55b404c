"""A U-Net with a convolutional LSTM (Shi et al. 2015, arXiv 1506.04214) over a sequence of frames or slices.

For microscopy such networks are due to Arbelle and Riklin Raviv (2019, arXiv 1805.11247), for stacks of slices
to Chen et al. (2016, arXiv 1609.01006).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import Norm, double_conv, up
from compress.networks.blocks.conv_lstm import ConvLSTM
from compress.networks.blocks.he import he_initialised
from compress.networks.blocks.u_shape import UShape


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ConvLSTMUNet:
    """A U-Net that reads `frames` frames and answers with the logits of the last one.

    The frames stand side by side as channels, the earliest first: an input of `in_channels` = frames times
    the channels of one of them. Every frame goes through the same encoder; the loop over time is unrolled.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=2)] = 3
    """Channels of the input, all frames together."""
    frames: Annotated[int, Field(ge=2)] = 3
    width: Annotated[int, Field(ge=1)] = 64
    """Channels at full resolution, doubled at every level."""
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    norm: Norm = "batch"
    memory: Literal["bottleneck", "features"] = "bottleneck"
    """Where the LSTM stands: on the lowest level, while skips are the last frame's; or on the last
    features of whole U-Nets, one a frame, just before the head."""
    dims: ClassVar[int] = 2

    @model_validator(mode="after")
    def _whole_frames(self) -> ConvLSTMUNet:
        if self.in_channels % self.frames:
            fitting = -(-self.in_channels // self.frames) * self.frames
            raise ValueError(
                f"in_channels {self.in_channels} is no multiple of frames {self.frames}: it counts the channels of "
                f"all frames together, {fitting} would fit"
            )
        return self

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        step = 2**self.depth
        if self.norm == "instance" and set(size) == {step}:
            return f"instance norm needs more than one pixel: pad to {2 * step}x{2 * step} or set a smaller depth"
        return multiples(size, step)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(frames_BCHW), any floating dtype."""
        return ConvLSTMUNetModule(self)


class ConvLSTMUNetModule(nn.Module):
    """The network that `ConvLSTMUNet` describes; `net` is the U-Net that every frame shares."""

    def __init__(self, shape: ConvLSTMUNet) -> None:
        super().__init__()
        self.frames, self.memory_first = shape.frames, shape.memory == "bottleneck"
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        rising = widths[-2::-1]
        entry = shape.in_channels // shape.frames
        self.net = UShape(
            encoder=[double_conv(*pair, norm=shape.norm) for pair in pairwise([entry, *widths])],
            up=[up(2 * width, width, kind="transposed") for width in rising],
            decoder=[double_conv(2 * width, width, norm=shape.norm) for width in rising],
            head=nn.Conv2d(shape.width, shape.classes, 1),
        )
        he_initialised(self.net)
        # Gates saturate under He's larger weights: the LSTM keeps torch's.
        remembered = widths[-1] if self.memory_first else widths[0]
        self.memory = ConvLSTM(remembered, remembered)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        levels = [self.net.encoded(frame_BCHW) for frame_BCHW in x_BCHW.chunk(self.frames, dim=1)]
        if self.memory_first:
            lowest_BCHW = self.memory([features[-1] for features in levels])
            return self.net.head(self.net.decoded([*levels[-1][:-1], lowest_BCHW]))
        return self.net.head(self.memory([self.net.decoded(features) for features in levels]))
