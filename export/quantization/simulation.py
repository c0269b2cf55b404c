"""A quantized network in torch that answers as its runtime does, to the rounding of each code.

In float a convolution of rounded values answers within a millionth of the sum that integers have, and of ten thousand
codes a few fall to the other side of a half. Most networks do not mind; where codes are compared with each other (the
unpooling of SegNet follows the larger of two neighbours) each of them moves a value, and a percent of all pixels may
change class. Here sums are taken of the codes themselves, which float32 holds exactly up to 2^24.

Legend: O output channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from export.graph import CONVS, add_constant, bias_of, clean, constant, fused_end
from export.quantization.carriers import CARRIERS, tensors_into
from export.quantization.qdq import PAIR, STRETCHED
from export.quantization.rules import Rules

_PAIRS = (PAIR, STRETCHED)
_EPSILON = 2.0**-23
"""By which the end of a grid may lie beyond that of an activation (onnxruntime, clip_quantizelinear.cc)."""


def as_computed(placed: fx.GraphModule, rules: Rules) -> fx.GraphModule:
    """The same network with its integer convolutions summed up in codes; the graph given is changed.

    Args:
        placed: with pairs where the rules want them.
    """
    # All of them first: writing one takes away the pair that the next one reads.
    for layer in list(_layers(placed)):
        layer.write(placed, rules)
    clean(placed)
    return placed


def _layers(graph: fx.GraphModule) -> Iterator[_Layer]:
    for node in graph.graph.nodes:
        if node.target in CONVS and _node(node.args[1]).target is PAIR:
            step = _step_read(graph, node.args[0])
            if step is not None:
                yield _Layer.of(graph, node, step)


def _node(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _step_read(graph: fx.GraphModule, argument: Any) -> Tensor | None:
    """The one step of the codes that a node puts out; None if there is none."""
    node = _node(argument)
    if node.target in _PAIRS:
        return _Grid.of(graph, node).read
    if node.target not in CARRIERS:
        return None
    first, *others = (_step_read(graph, source) for source in tensors_into(node))
    same = first is not None and all(each is not None and torch.equal(each, first) for each in others)
    return first if same else None


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Of the codes behind a pair."""

    written: Tensor
    """The step that values are divided by."""
    read: Tensor
    """The step that codes are multiplied by: another one where the tensor is stretched."""
    first: int
    """The smallest code, the zero point taken off."""
    last: int

    @staticmethod
    def of(graph: fx.GraphModule, pair: fx.Node) -> _Grid:
        given = pair.args[1:3] if pair.target is PAIR else pair.args[1:4]
        *steps, zero = (constant(graph, _node(each)) for each in given)
        limits = torch.iinfo(zero.dtype)
        first, last = limits.min - int(zero), limits.max - int(zero)
        return _Grid(written=steps[0], read=steps[-1], first=first, last=last)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A convolution of codes."""

    node: fx.Node
    end: fx.Node
    """The activation that is fused into it; itself where there is none."""
    codes: Tensor
    """Of its weight."""
    read: Tensor
    """The step of what it reads."""
    step_O: Tensor
    """Of its sums; a scalar where all output channels have one."""

    @staticmethod
    def of(graph: fx.GraphModule, node: fx.Node, read: Tensor) -> _Layer:
        weight, scale_O, zero = (constant(graph, _node(each)) for each in _node(node.args[1]).args[:3])
        limits = torch.iinfo(zero.dtype)
        codes = (weight / _shaped(scale_O, weight.dim(), 0)).round().clamp(limits.min, limits.max)
        return _Layer(node=node, end=fused_end(node), codes=codes, read=read, step_O=read * scale_O)

    def write(self, graph: fx.GraphModule, rules: Rules) -> None:
        """Put it into the graph, in the place of the convolution of values, and of the pair behind it."""
        node, axes = self.node, self.codes.dim()
        bias_O = bias_of(graph, node)
        read = _call(graph, node, _codes, node.args[0], self._constant(graph, "step", self.read))
        sums = _call(graph, node, node.target, read, self._constant(graph, "codes", self.codes), None, *node.args[3:])
        factor = self._constant(graph, "factor", _shaped(self.step_O, axes, 1))
        bias = None if bias_O is None else self._constant(graph, "shift", _shaped(bias_O, axes, 1))
        for pair in list(self.end.users) if rules.sums_with_bias else []:
            if pair.target in _PAIRS and self._ends_at(grid := _Grid.of(graph, pair)):
                scale = self._constant(graph, "scale", _shaped(self.step_O / grid.written, axes, 1))
                whole = None if bias_O is None else (bias_O / self.step_O).round()
                added = None if whole is None else self._constant(graph, "whole", _shaped(whole, axes, 1))
                ends = (grid.first, grid.last, float(grid.read))
                pair.replace_all_uses_with(_call(graph, pair, _rescaled, sums, added, scale, *ends))
        values = _call(graph, node, _values, sums, factor, bias)
        values.meta = {**node.meta}
        node.replace_all_uses_with(values)

    def _ends_at(self, grid: _Grid) -> bool:
        """Whether its activation only cuts off what the grid does, so that the runtime leaves it to the grid."""
        if self.end is self.node:
            return True
        ends = torch.stack([grid.first * grid.written, grid.last * grid.written])
        assert callable(self.end.target)
        return bool(((self.end.target(ends, *self.end.args[1:]) - ends).abs() <= _EPSILON).all())

    def _constant(self, graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
        with graph.graph.inserting_before(self.node):
            return add_constant(graph, f"{self.node.name}_{name}", value)


def _shaped(value_O: Tensor, axes: int, channel: int) -> Tensor:
    return value_O.reshape([-1 if axis == channel else 1 for axis in range(axes)]) if value_O.dim() else value_O


def _call(graph: fx.GraphModule, before: fx.Node, function: Any, *args: Any) -> fx.Node:
    with graph.graph.inserting_before(before):
        return graph.graph.call_function(function, args)


def _codes(values: Tensor, step: Tensor) -> Tensor:
    return (values / step).round()


def _values(sums: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
    """What runtimes make of sums that no integers are wanted of."""
    values = sums * factor
    return values if bias is None else values + bias


def _rescaled(sums: Tensor, bias: Tensor | None, scale: Tensor, first: int, last: int, step: float) -> Tensor:
    """From the sums of a layer to the values that its output's codes stand for (onnxruntime, MlasRequantizeOutput)."""
    sums = sums if bias is None else sums + bias
    return (sums * scale).round().clamp(first, last) * step
