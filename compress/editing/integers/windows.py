"""Pieces of what a region reads, where it answers a pixel from its neighbours alone: learning from them is quicker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compress.editing.integers.regions import Region
from export.graph import CONVS, TRANSPOSED, aten

AT_ONCE = 8
"""Small cases that are learnt from together."""
SIDE = 64
"""Pixels of a side that are compared."""
_POINTWISE = (
    aten.relu.default,
    aten.relu6.default,
    aten.leaky_relu.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.silu.default,
    aten.gelu.default,
    aten.sigmoid.default,
    aten.add.Tensor,
    aten.mul.Tensor,
    aten.sub.Tensor,
)
Cut = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Window:
    """How pieces are taken; a margin of None takes everything."""

    margin: int | None
    together: bool = True
    """Whether several cases can be answered at once."""
    _place: dict[str, tuple[slice, ...]] = field(default_factory=dict)

    def drawn(self, pairs: Sequence[Cut], random: torch.Generator) -> Cut:
        """What is read and wanted of some cases, drawn at random: a piece of one, or all of several that are small."""
        if self.margin is not None:
            return self._cut(*pairs[int(torch.randint(len(pairs), (1,), generator=random))], random)
        count = max(1, min(AT_ONCE, SIDE**2 // math.prod(pairs[0][1].shape[2:]))) if self.together else 1
        places = torch.randint(len(pairs), (count,), generator=random).tolist()
        return torch.cat([pairs[place][0] for place in places]), torch.cat([pairs[place][1] for place in places])

    def _cut(self, read: Tensor, wanted: Tensor, random: torch.Generator) -> Cut:
        """A piece of what is read, with a margin, and the piece of what is wanted that it covers."""
        assert self.margin is not None
        outer, inner, within = [], [], []
        for side in wanted.shape[2:]:
            length = min(SIDE, side)
            first = int(torch.randint(side - length + 1, (1,), generator=random))
            low, high = max(first - self.margin, 0), min(first + length + self.margin, side)
            outer.append(slice(low, high))
            inner.append(slice(first, first + length))
            within.append(slice(first - low, first - low + length))
        self._place["within"] = (slice(None), slice(None), *within)
        everything = (slice(None), slice(None))
        return read[(*everything, *outer)], wanted[(*everything, *inner)]

    def inner(self, answer: Tensor, wanted: Tensor) -> Tensor:
        """The difference between an answer to the last piece that was cut and what is wanted of it."""
        return (answer if self.margin is None else answer[self._place["within"]]) - wanted


def windows(region: Region, read: Tensor, wanted: Tensor) -> Window:
    """The pieces that a region's answer can be learnt from."""
    margins = [_margin(node) for node in region.nodes]
    same_size = read.dim() > 2 and read.shape[2:] == wanted.shape[2:]
    if None in margins or not same_size or max(wanted.shape[2:]) <= 2 * SIDE:
        # A shape that was written down when the graph was captured is that of one case.
        return Window(
            margin=None, together=all(node.target in (*_POINTWISE, *CONVS, *TRANSPOSED) for node in region.nodes)
        )
    return Window(margin=sum(margin for margin in margins if margin is not None))


def _margin(node: Any) -> int | None:
    """How many pixels beside its own an operation reads; None if that is not known."""
    if node.target in _POINTWISE:
        return 0
    if node.target not in CONVS or set(_steps(node, 3)) != {1}:
        return None
    kernel = node.args[1].meta["val"].shape[2:]
    return max(
        dilation * (side // 2) for dilation, side in zip(_each(_steps(node, 5), len(kernel)), kernel, strict=True)
    )


def _steps(node: Any, place: int) -> list[int]:
    return list(node.args[place]) if len(node.args) > place else [1]


def _each(given: list[int], axes: int) -> list[int]:
    return given * axes if len(given) == 1 else given
