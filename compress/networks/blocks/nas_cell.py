"""The cells of NAS-Unet (Weng et al. 2019, "NAS-Unet", IEEE Access 7), built from genotypes: data, not code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import yaml
from pydantic import ConfigDict, Field, TypeAdapter, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.squeeze_excite import SqueezeExcite

Operation = Literal[
    "identity",
    "cweight",
    "conv",
    "dil_conv",
    "dep_conv",
    "avg_pool",
    "max_pool",
    "down_cweight",
    "down_conv",
    "down_dil_conv",
    "down_dep_conv",
    "up_cweight",
    "up_conv",
    "up_dil_conv",
    "up_dep_conv",
]
"""`down_` halves the size and `up_` doubles it, all but one pixel; so do the two poolings halve it."""
Edge = tuple[Operation, Annotated[int, Field(ge=0)]]
"""An operation and the state it reads: 0 and 1 are the cell's inputs, those from 2 on the sums of earlier pairs."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Genotype:
    """What a cell of each kind consists of; two edges each make one new state, their sum."""

    down: tuple[Edge, ...]
    up: tuple[Edge, ...]

    @field_validator("down", "up")
    @classmethod
    def _reads_what_is_there(cls, edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
        if not edges or len(edges) % 2:
            raise ValueError(f"edges come in pairs, and here are {len(edges)}")
        for index, (name, state) in enumerate(edges):
            newest = 1 + index // 2
            if state > newest:
                raise ValueError(f"edge {index} ({name}) reads state {state}; it may read 0 to {newest}")
        return edges

    @field_validator("down")
    @classmethod
    def _halves(cls, edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
        return _checked(edges, state_sizes(edges, 64, 64), 32)

    @field_validator("up")
    @classmethod
    def _doubles(cls, edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
        return _checked(edges, state_sizes(edges, 64, 32), 64)


@cache
def genotypes() -> dict[str, Genotype]:
    """The genotypes that tianbaochou/NasUnet published, by their names there."""
    read = yaml.safe_load(Path(__file__).with_name("nas_genotypes.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Genotype]).validate_python(read)


def state_sizes(edges: Sequence[Edge], first: int, second: int) -> list[int]:
    """The side of each new state of a cell whose inputs, once in, have these sides; 0 where nothing is left."""
    sizes = [first, second]
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        moved = [_moved(name, sizes[state]) for name, state in (left, right)]
        sizes.append(max(moved) if min(moved) > 0 else 0)
    return sizes[2:]


def _moved(name: Operation, side: int) -> int:
    if name.startswith("up_"):
        return 2 * side - 1
    if name.endswith("_pool"):
        return side // 2
    return (side + 1) // 2 if name.startswith("down_") else side


def _checked(edges: tuple[Edge, ...], sizes: Sequence[int], wanted: int) -> tuple[Edge, ...]:
    for index, size in enumerate(sizes):
        if size != wanted:
            raise ValueError(
                f"edges {2 * index} and {2 * index + 1} make {size} pixels of 64 where the cell makes {wanted}; "
                "one edge of each pair must bring this size"
            )
    return edges


class NasCell(nn.Module):
    """One cell: out_BCHW = net(first_BCHW, second_BCHW), its new states side by side.

    One that goes down halves `first` as it comes in, and one that goes up is given `second` at half the
    size of `first`. States of two sizes are added at the larger one (nearest neighbour).
    """

    def __init__(
        self, edges: Sequence[Edge], before: tuple[int, int], channels: int, *, down: bool, dropout: float
    ) -> None:
        super().__init__()
        strides = 2 if down else 1, 1
        self.entries = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(width, channels, 1, stride=stride, bias=False), grouped(channels))
            for width, stride in zip(before, strides, strict=True)
        )
        self.operations = nn.ModuleList(_operation(name, channels, dropout) for name, _ in edges)
        self._reads = [state for _, state in edges]
        self.channels = len(edges) // 2 * channels
        """Of what it answers with."""

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        states = [entry(x) for entry, x in zip(self.entries, (first_BCHW, second_BCHW), strict=True)]
        for place in range(0, len(self._reads), 2):
            left, right = (self.operations[at](states[self._reads[at]]) for at in (place, place + 1))
            states.append(_sum(left, right))
        return torch.cat(states[2:], dim=1)


def grouped(channels: int) -> nn.GroupNorm:
    """Normalization by groups of 16 channels, or all at once where 16 does not divide them."""
    return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)


def _operation(name: Operation, channels: int, dropout: float) -> nn.Module:
    direction = next((way for way in ("down", "up") if name.startswith(f"{way}_")), "")
    kind = name.removeprefix(f"{direction}_")
    if kind == "identity":
        return nn.Identity()
    if kind in ("avg_pool", "max_pool"):
        return nn.AvgPool2d(2) if kind == "avg_pool" else nn.MaxPool2d(2)
    drop = [nn.Dropout2d(dropout)] if dropout else []
    if kind == "cweight":
        move = [*_conv("conv", channels, direction), grouped(channels)] if direction else []
        return nn.Sequential(*drop, SqueezeExcite(channels), *move)
    return nn.Sequential(*drop, *_conv(kind, channels, direction), grouped(channels), nn.ReLU(inplace=True))


def _conv(kind: str, channels: int, direction: str) -> list[nn.Module]:
    """A 3x3 convolution (`conv`), one with a dilation of 2, or a depthwise one and a 1x1; none has a bias."""
    layer = nn.ConvTranspose2d if direction == "up" else nn.Conv2d
    dilation, groups = 2 if kind == "dil_conv" else 1, channels if kind == "dep_conv" else 1
    stride = 2 if direction else 1
    spatial = layer(
        channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=False
    )
    return [spatial, nn.Conv2d(channels, channels, 1, bias=False)] if kind == "dep_conv" else [spatial]


def _sum(left_BCHW: Tensor, right_BCHW: Tensor) -> Tensor:
    height, width = (max(sides) for sides in zip(left_BCHW.shape[2:], right_BCHW.shape[2:], strict=True))
    return _enlarged(left_BCHW, height, width) + _enlarged(right_BCHW, height, width)


def _enlarged(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    return x_BCHW if x_BCHW.shape[2:] == (height, width) else F.interpolate(x_BCHW, size=(height, width))
