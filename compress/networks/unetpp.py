"""UNet++ (Zhou et al. 2018, arXiv 1807.10165; 2020, arXiv 1912.05074): nested U-Nets that share one encoder."""

from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import Norm, Up, double_conv, up
from compress.networks.blocks.he import he_initialised


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UNetPP:
    """A UNet++ of `level` halvings: `width` channels at full resolution, doubled at every halving.

    The authors' own network is `width: 32, level: 4, norm: none, deep_supervision: false` (9,041,601
    parameters for one input channel and one class; 9,041,700 with deep supervision).

    Under deep supervision each X(0, 1) to X(0, level) has a head. In training the network answers
    with the logits of all heads, those of X(0, level) first, all at full size. In evaluation it
    answers with those of X(0, level) alone: the paper's fast mode (2020, "model pruning"), in which a
    cut network differs from the whole by what was cut, and not by which heads are averaged.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=1)] = 32
    level: Annotated[int, Field(ge=1, le=8)] = 4
    """What is built: the nodes that X(0, level) needs, L1 to L4 in the paper. Also how often it halves."""
    norm: Norm = "batch"
    up: Up = "transposed"
    """How a node doubles the resolution below it: a 2x2 transposed convolution (the authors), or
    nearest-neighbour up-sampling followed by a 3x3 convolution."""
    dims: ClassVar[int] = 2
    deep_supervision: bool = True
    """A head on each X(0, j), trained together: without them a network cannot be cut to a lower level."""

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype."""
        return UNetPPModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        if self.norm == "instance" and set(size) == {2**self.level}:
            return f"instance norm needs more than one pixel at level {self.level}: set data size or a smaller level"
        return multiples(size, 2**self.level)


class UNetPPModule(nn.Module):
    """The network that `UNetPP` describes.

    Node X(i, j) is `nodes["i_j"]`: i halvings down, j steps along its row. It reads all nodes before
    it in its row and, through `up["i_j"]`, the one below. `heads["j"]` reads X(0, j). A network of a
    lower level has the same names, only fewer of them.
    """

    def __init__(self, shape: UNetPP) -> None:
        super().__init__()
        self.level, self.deep_supervision = shape.level, shape.deep_supervision
        widths = [shape.width * 2**row for row in range(shape.level + 1)]
        self.pool = nn.MaxPool2d(2)
        self.nodes, self.up, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for row, width in enumerate(widths):
            before = shape.in_channels if row == 0 else widths[row - 1]
            self.nodes[f"{row}_0"] = double_conv(before, width, norm=shape.norm)
        for place in range(1, shape.level + 1):
            for row in range(shape.level - place + 1):
                name, width = f"{row}_{place}", widths[row]
                self.up[name] = up(widths[row + 1], width, kind=shape.up, norm=shape.norm)
                self.nodes[name] = double_conv((place + 1) * width, width, norm=shape.norm)
            if shape.deep_supervision or place == shape.level:
                self.heads[str(place)] = nn.Conv2d(shape.width, shape.classes, 1)
        # As the authors'.
        he_initialised(self)

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        rows = [[self.nodes["0_0"](x_BCHW)]]
        for row in range(1, self.level + 1):
            rows.append([self.nodes[f"{row}_0"](self.pool(rows[-1][0]))])
        for place in range(1, self.level + 1):
            for row in range(self.level - place + 1):
                name = f"{row}_{place}"
                above = self.up[name](rows[row + 1][place - 1])
                rows[row].append(self.nodes[name](torch.cat([*rows[row], above], dim=1)))
        if self.training and self.deep_supervision:
            return tuple(self.heads[str(place)](rows[0][place]) for place in range(self.level, 0, -1))
        return self.heads[str(self.level)](rows[0][self.level])

    def cut(self, level: int) -> None:
        """Drop, in place, every node, up-sampling and head that X(0, level) does not need.

        Args:
            level: at most this network's own, and one with a head (`str(level) in self.heads`).
        """
        assert str(level) in self.heads, f"no head at level {level}"
        for blocks in (self.nodes, self.up, self.heads):
            for name in [name for name in blocks if sum(map(int, name.split("_"))) > level]:
                del blocks[name]
        self.level = level
