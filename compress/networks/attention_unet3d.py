"""3-D Attention U-Net (Oktay et al. 2018, arXiv 1804.03999; Schlemper et al. 2019, arXiv 1808.08114)."""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.grid_attention import MultiAttention3d
from compress.networks.blocks.he import he_initialised


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AttentionUNet3D:
    """The authors' CT network: `width` channels at full resolution, doubled at every halving.

    Every skip but the one at full resolution goes through attention gates that the level below asks. The
    logits come from all levels of the decoder at once, in training and after it.
    The authors' multi-attention network is `gates: 2`, their single-attention network `gates: 1`.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=1)] = 16
    depth: Annotated[int, Field(ge=2, le=8)] = 4
    gates: Annotated[int, Field(ge=1, le=8)] = 1
    """Attention gates side by side on each skip."""
    dims: ClassVar[int] = 3

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCDHW = net(image_BCDHW), any floating dtype."""
        return AttentionUNet3DModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (depth, height, width), and what would be right; None if nothing."""
        return multiples(size, 2**self.depth)


class AttentionUNet3DModule(nn.Module):
    """The network that `AttentionUNet3D` describes; logits_BCDHW = net(image_BCDHW)."""

    def __init__(self, shape: AttentionUNet3D) -> None:
        super().__init__()
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        levels = list(reversed(list(pairwise(widths))))
        self.pool = nn.MaxPool3d(2)
        self.encoder = nn.ModuleList(
            _double_conv(before, after) for before, after in pairwise([shape.in_channels, *widths])
        )
        # Only the deepest level asks through a convolution; those above it ask as they are.
        self.signal = nn.Sequential(*_conv(widths[-1], widths[-1], 1))
        self.attention = nn.ModuleList(MultiAttention3d(skip, below, shape.gates) for skip, below in levels[:-1])
        self.up = nn.Upsample(scale_factor=2.0, mode="trilinear")
        self.decoder = nn.ModuleList(_double_conv(skip + below, skip) for skip, below in levels)
        self.heads = nn.ModuleList(
            _head(skip, shape.classes, 2 ** (shape.depth - 1 - index)) for index, (skip, _) in enumerate(levels)
        )
        self.combine = nn.Conv3d(shape.depth * shape.classes, shape.classes, 1)
        he_initialised(self)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.encoder):
            x_BCDHW = block(x_BCDHW if level == 0 else self.pool(x_BCDHW))
            skips.append(x_BCDHW)
        x_BCDHW = skips.pop()
        signal, answers = self.signal(x_BCDHW), []
        for index, (block, head) in enumerate(zip(self.decoder, self.heads, strict=True)):
            skip = skips.pop()
            if index < len(self.attention):
                skip = self.attention[index](skip, signal)
            signal = x_BCDHW = block(torch.cat([skip, self.up(x_BCDHW)], dim=1))
            answers.append(head(x_BCDHW))
        return self.combine(torch.cat(answers[::-1], dim=1))


def _double_conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_conv(before, after, 3), *_conv(after, after, 3))


def _conv(before: int, after: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv3d(before, after, kernel, padding=kernel // 2)
    return [conv, nn.BatchNorm3d(after), nn.ReLU(inplace=True)]


def _head(channels: int, classes: int, times: int) -> nn.Module:
    """Logits at full size of a level that is so many times smaller."""
    conv = nn.Conv3d(channels, classes, 1)
    return conv if times == 1 else nn.Sequential(conv, nn.Upsample(scale_factor=float(times), mode="trilinear"))
