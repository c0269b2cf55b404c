"""What a network's integers have learnt from data beside the ranges of activations.

Legend: O output channels of one scale, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, fx

from export.graph import convolutions


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The steps of a weight that lies on its grid already, and how many bits its integers have."""

    scale_O: Tensor
    bits: int = 8

    @property
    def largest(self) -> int:
        """The largest code; the smallest is its negative, so that zero is in the middle."""
        return int(2 ** (self.bits - 1)) - 1


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """Grids of weights, and means of activations with which biases are corrected; neither need be there."""

    grids: Mapping[str, Grid] = field(default_factory=dict)
    """By the path of the weight."""
    means: Mapping[str, Tensor] = field(default_factory=dict)
    """By the name of the activation, the mean of each of its channels on real cases."""

    def mark(self, graph: fx.GraphModule) -> None:
        """Write on each layer and activation of a graph what was learnt of it (`meta`: "grid", "mean_C")."""
        for node in graph.graph.nodes:
            if node.name in self.means:
                node.meta["mean_C"] = self.means[node.name]
        for node in convolutions(graph):
            grid = self.grids.get(weight_path(node))
            if grid is not None:
                node.meta["grid"] = grid


NOTHING = Learnt()


def weight_path(node: fx.Node) -> str:
    """The path by which a layer's weight is known in its graph."""
    source = node.args[1]
    assert isinstance(source, fx.Node)
    return str(source.target)
