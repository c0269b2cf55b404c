"""A graph that is run a part at a time, in float or with its layers' inputs and weights on grids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from export.graph import constant
from export.quantization.carriers import source_of
from export.quantization.rules import Rules
from export.quantization.scales import Range, grid

Values = dict[fx.Node, Any]
"""What nodes answered, those that something still reads."""


class Simulated:
    """Runs nodes of a graph; what integer layers read is rounded, and rounding lets gradients through where it does not
    cut off.
    """

    def __init__(
        self, graph: fx.GraphModule, layers: Collection[fx.Node], ranges: Mapping[str, Range], rules: Rules
    ) -> None:
        self.graph, self.layers = graph, set(layers)
        sources = {source_of(node.args[0]).name for node in layers}
        self.grids = {name: grid(ranges[name], rules) for name in sources}

    def run(self, nodes: Iterable[fx.Node], values: Values, weights: Mapping[str, Tensor] | None = None) -> None:
        """Add the answers of these nodes to `values`.

        Args:
            weights: by their path, weights and biases in the place of the graph's own; None runs all in float.
        """

        def value(node: fx.Node) -> Any:
            if node.op != "get_attr":
                return values[node]
            path = str(node.target)
            return weights[path] if weights and path in weights else constant(self.graph, node)

        for node in nodes:
            if node.op != "call_function":
                continue
            args: list[Any] = list(fx.map_arg(node.args, value))
            if weights is not None and node in self.layers:
                args[0] = self._rounded(source_of(node.args[0]).name, args[0])
            assert callable(node.target)
            values[node] = node.target(*args, **fx.map_arg(node.kwargs, value))

    def _rounded(self, name: str, activation: Tensor) -> Tensor:
        scale, zero = self.grids[name]
        limits = torch.iinfo(zero.dtype)
        return torch.fake_quantize_per_tensor_affine(activation, float(scale), int(zero), limits.min, limits.max)
