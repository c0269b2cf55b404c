"""Networks trained with the rounding of their integers in the loop, the steps of their grids learnt with their weights.

LSQ (Esser et al. 2020, arXiv 1902.08153): gradients pass a rounding as if it were not there, and reach the step through
the distance that rounding moved each value. Steps are learnt as the logarithm of a factor, so that one learning rate
suits steps of any size (the paper scales their gradients instead). Batch norms were folded before: what is trained is
what runs.

Legend: O output channels of one scale.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from export.graph import CONVS, convolutions, groups_of, weight_of
from export.quantization.carriers import source_of
from export.quantization.integer_weights import per_weight
from export.quantization.learnt import Grid, weight_path
from export.quantization.observers import layout_is_free
from export.quantization.rules import Rules
from export.quantization.saturation import depthwise
from export.quantization.scales import Range, grid
from export.quantization.weight_grids import in_bits

SAFE = 64
"""The largest code of 8-bit weights but depthwise ones: no sum of two products with them leaves 16 bits."""


class LearnedSteps(nn.Module):
    """A folded graph whose layers read rounded activations through rounded weights; weights, biases and steps learn."""

    def __init__(
        self, graph: fx.GraphModule, grids: Mapping[str, Grid], ranges: Mapping[str, Range], rules: Rules
    ) -> None:
        super().__init__()
        self.graph = copy.deepcopy(graph)
        for parameter in self.graph.parameters():
            parameter.requires_grad_()
        for node in convolutions(self.graph):
            if in_bits(self.graph, node):
                self.graph.get_parameter(weight_path(node)).requires_grad_(False)
        self.layers = {node.name: weight_path(node) for node in convolutions(self.graph) if weight_path(node) in grids}
        nodes = [node for node in convolutions(self.graph) if node.name in self.layers]
        self.sources = {node.name: source_of(node.args[0]).name for node in nodes}
        self.free = layout_is_free(self.graph)
        """Whether images and weights may lie in another order."""
        self.together = _takes_several(self.graph)
        names = list(dict.fromkeys(self.sources.values()))
        self.places = {name: place for place, name in enumerate(names)}
        points = [grid(ranges[name], rules) for name in names]
        self.steps: Tensor
        self.register_buffer("steps", torch.stack([scale for scale, _ in points]))
        self.zeros = [int(zero) for _, zero in points]
        self.factors = nn.Parameter(torch.zeros(len(names)))
        """Of each activation's step, as a logarithm."""
        self.last = {weight_path(node): _last(self.graph, node, grids[weight_path(node)]) for node in nodes}
        self.weight_steps = nn.ParameterList()
        self.order = {weight_path(node): place for place, node in enumerate(nodes)}
        for node in nodes:
            found = grids[weight_path(node)]
            # On a grid of fewer codes the largest weight is still reached.
            scale_O = found.scale_O * (found.largest / self.last[weight_path(node)])
            weight = self.graph.get_parameter(weight_path(node))
            self.weight_steps.append(nn.Parameter(per_weight(node, scale_O.to(weight.dtype), weight).log()))

    def forward(self, image: Tensor) -> Tensor:
        cases = [image] if self.together else image.split(1)
        return torch.cat([_Rounding(self).run(case if self.free else case.contiguous()) for case in cases])

    def rounded_weight(self, path: str, weight: Tensor) -> Tensor:
        """A weight on its grid, in float32."""
        last = self.last[path]
        return _rounded(weight.float(), self.weight_steps[self.order[path]].exp(), 0, (-last, last))

    def rounded_activation(self, name: str, activation: Tensor) -> Tensor:
        """What layers read, on its grid, in float32."""
        place = self.places[name]
        zero = self.zeros[place]
        return _rounded(activation.float(), self.steps[place] * self.factors[place].exp(), zero, (0, 255))

    @torch.no_grad()
    def learnt(self, ranges: Mapping[str, Range]) -> tuple[fx.GraphModule, dict[str, Grid], dict[str, Range]]:
        """The graph with its weights on their grids, the grids, and the ranges of all activations."""
        graph = copy.deepcopy(self.graph)
        grids = {}
        for node in convolutions(self.graph):
            path = self.layers.get(node.name)
            if path is not None:
                graph.get_parameter(path).copy_(self.rounded_weight(path, self.graph.get_parameter(path)))
                scale_O = self.weight_steps[self.order[path]].exp().flatten()
                grids[path] = Grid(scale_O=scale_O.detach().clone(), bits=self.last[path].bit_length() + 1)
        for parameter in graph.parameters():
            parameter.requires_grad_(False)
        found = dict(ranges)
        for name, place in self.places.items():
            step = float(self.steps[place] * self.factors[place].exp())
            found[name] = (-self.zeros[place] * step, (255 - self.zeros[place]) * step)
        return graph, grids, found


@torch.no_grad()
def _takes_several(graph: fx.GraphModule) -> bool:
    """Whether a graph that was captured with one case answers two at once: shapes can be written down in it."""
    (image,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    shape = [int(side) for side in image.meta["val"].shape[1:]]
    two = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        both = graph(two)
    except (RuntimeError, ValueError):
        return False
    alone = torch.cat([graph(two[:1]), graph(two[1:])])
    return both.shape == alone.shape and torch.allclose(both, alone, rtol=1e-2, atol=1e-3 * float(alone.abs().max()))


def _last(graph: fx.GraphModule, node: fx.Node, found: Grid) -> int:
    widened = depthwise(node.target in CONVS, weight_of(graph, node).shape, groups_of(node))
    return found.largest if widened else min(found.largest, SAFE)


class _Rounding(fx.Interpreter):
    """Runs the graph; integer layers read rounded inputs and weights."""

    def __init__(self, steps: LearnedSteps) -> None:
        super().__init__(steps.graph)
        self.learned = steps
        self.rounded: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        path = self.learned.layers.get(n.name)
        if n.target is torch.ops.aten.view.default:
            args, _ = self.fetch_args_kwargs_from_env(n)
            return args[0].reshape(args[1])
        if path is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        source = self.learned.sources[n.name]
        if source not in self.rounded:
            self.rounded[source] = self.learned.rounded_activation(source, args[0])
        weight = self.learned.rounded_weight(path, args[1])
        if not self.learned.free:
            weight = weight.contiguous()
        assert callable(n.target)
        return n.target(self.rounded[source], weight, *args[2:], **kwargs)


def _rounded(value: Tensor, step: Tensor, zero: int, ends: tuple[int, int]) -> Tensor:
    """The nearest points of a grid; gradients pass rounding but not the ends, and reach the step (equation 3)."""
    scaled = value / step + zero
    codes = scaled.clamp(*ends)
    return (codes + (codes.round() - codes).detach() - zero) * step
