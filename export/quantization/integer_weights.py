"""How a layer's weights are put on their grids.

Legend: O output channels of one scale, C input channels of a group, T taps of the kernel (flat).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from export.graph import CONVS, TRANSPOSED, add_constant, aten, bias_of, groups_of, layer_name, set_constant, weight_of
from export.quantization.bias import correct_bias
from export.quantization.carriers import CARRIERS, source_of, tensors_into
from export.quantization.qdq import PAIR
from export.quantization.rules import Rules
from export.quantization.saturation import LARGEST_SUM, depthwise, largest_pairs, outputs_of_transposed, safe_scale
from export.quantization.scales import Range, Reading, grid, least_scale, weight_scale

_BOUNDS: dict[Any, float] = {
    aten.relu6.default: 6.0,
    aten.sigmoid.default: 1.0,
    aten.hardsigmoid.default: 1.0,
    aten.tanh.default: 1.0,
    aten.softmax.int: 1.0,
    aten._softmax.default: 1.0,
}
"""The largest value of operators that have one."""


def quantize_weights(
    graph: fx.GraphModule, integer: Sequence[fx.Node], spans: Mapping[str, Range], rules: Rules
) -> None:
    """Put a pair on the weight of every integer layer, in place.

    Args:
        spans: the range of the grid of every quantized tensor.
    """
    pairs: dict[tuple[fx.Node, int], fx.Node] = {}
    codes = _largest_codes(graph, integer, spans, rules) if rules.pairs_in_16_bits else {}
    readings = _readings(graph, integer, spans, rules)
    for node in integer:
        key = _weight_key(node)
        _quantize_weight(graph, node, pairs, readings[key], codes.get(key))


def _quantize_weight(
    graph: fx.GraphModule,
    node: fx.Node,
    pairs: dict[tuple[fx.Node, int], fx.Node],
    readings: Sequence[Reading],
    code: int | None,
) -> None:
    """Symmetric int8, one scale an output channel (Krishnamoorthi 2018, arXiv 1806.08342, section 3.1).

    Layers that share a weight share its pair; a layer that reads it along the other axis has its own.

    Args:
        readings: of every layer that shares the weight.
        code: the largest of the layer's input, where sums of pairs must stay within 16 bits.
    """
    key = _weight_key(node)
    before_OCT = by_output(graph, node)
    if key not in pairs:
        pairs[key] = _pair(graph, *key, _scale(graph, node, readings, code))
    pair = pairs[key]
    step = min(each.input_scale for each in readings)
    correct_bias(graph, node, before_OCT, source_of(pair.args[1]), step)
    node.update_arg(1, pair)


def _scale(graph: fx.GraphModule, node: fx.Node, readings: Sequence[Reading], code: int | None) -> Tensor:
    """The scales (O) of a layer's weight, which is cut off where its grid ends."""
    weight_OCT = by_output(graph, node)
    learnt = learnt_scale(node, weight_OCT, readings, code)
    if learnt is not None:
        # A grid of few bits may end before the largest weight.
        ends = per_weight(node, learnt, weight_of(graph, node)) * largest_code(node)
        set_constant(graph, node, 1, weight_of(graph, node).clamp(-ends, ends))
        return learnt
    finest = weight_scale(weight_OCT, readings)
    if code is None:
        return finest
    safe = safe_scale(weight_OCT, finest, code)
    graph.meta.setdefault("coarser", {})[layer_name(node)] = int((safe > finest).sum())
    return safe


def _pair(graph: fx.GraphModule, source: fx.Node, axis: int, scale_O: Tensor) -> fx.Node:
    """A pair behind a weight."""
    with graph.graph.inserting_after(source):
        pair = graph.graph.call_function(PAIR)
    with graph.graph.inserting_before(pair):
        constants = grid_constants(graph, str(source.target), scale_O, torch.zeros_like(scale_O, dtype=torch.int8))
    pair.args = (source, *constants, axis)
    return pair


def learnt_scale(node: fx.Node, weight_OCT: Tensor, readings: Sequence[Reading], code: int | None) -> Tensor | None:
    """The scale of the grid that a weight lies on already; None if it has none, or one whose sums have no room.

    Args:
        code: as in `_quantize_weight`.
    """
    grid_of = node.meta.get("grid")
    if grid_of is None:
        return None
    scale_O: Tensor = grid_of.scale_O.to(weight_OCT.dtype)
    integers_OCT = (weight_OCT / scale_O[:, None, None]).round().clamp(-grid_of.largest, grid_of.largest)
    leaves_16_bits = code is not None and bool((largest_pairs(integers_OCT) * max(code, 1) > LARGEST_SUM).any())
    leaves_32_bits = any(bool((scale_O < least_scale(weight_OCT, reading)).any()) for reading in readings)
    return None if leaves_16_bits or leaves_32_bits else scale_O


def largest_code(node: fx.Node) -> int:
    """The largest code of a layer's weights, as far as its grid says."""
    return node.meta["grid"].largest if "grid" in node.meta else 127


def per_weight(node: fx.Node, scale_O: Tensor, weight: Tensor) -> Tensor:
    """One value for each output channel of one scale, in the shape that multiplies a layer's weight."""
    ones = [1] * (weight.dim() - 2)
    return scale_O.reshape(1, -1, *ones) if node.target in TRANSPOSED else scale_O.reshape(-1, 1, *ones)


def by_output(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """A layer's weight as (output channels of one scale, input channels of a group, everything else)."""
    return laid_out(node, weight_of(graph, node))


def laid_out(node: fx.Node, weight: Tensor) -> Tensor:
    """A weight of a layer, laid out as `by_output` does."""
    groups = groups_of(node)
    if node.target not in TRANSPOSED:
        return weight.reshape(*weight.shape[:2], -1)
    return outputs_of_transposed(weight, groups)


def _weight_key(node: fx.Node) -> tuple[fx.Node, int]:
    """What layers that share a quantized weight have in common: the weight, and the axis of its scales."""
    return source_of(node.args[1]), 1 if node.target in TRANSPOSED else 0


def _readings(
    graph: fx.GraphModule, integer: Sequence[fx.Node], spans: Mapping[str, Range], rules: Rules
) -> dict[tuple[fx.Node, int], list[Reading]]:
    """What each weight is multiplied with and what is added, in all of the layers that share it."""
    found: dict[tuple[fx.Node, int], list[Reading]] = {}
    for node in integer:
        scale, _ = grid(spans[source_of(node.args[0]).name], rules)
        reading = Reading(bias_O=_bias_by_output(graph, node), input_scale=float(scale))
        found.setdefault(_weight_key(node), []).append(reading)
    return found


def _bias_by_output(graph: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """A layer's bias for each output channel of one scale (see `by_output`): the largest of those that share it."""
    bias = bias_of(graph, node)
    if bias is None or node.target not in TRANSPOSED:
        return bias
    return bias.reshape(groups_of(node), -1).abs().amax(0)


def _largest_codes(
    graph: fx.GraphModule, integer: Sequence[fx.Node], spans: Mapping[str, Range], rules: Rules
) -> dict[tuple[fx.Node, int], int]:
    """The largest code that each weight is multiplied with in pairs, in whichever of the layers that share it."""
    codes: dict[tuple[fx.Node, int], int] = {}
    for node in integer:
        if not depthwise(node.target in CONVS, weight_of(graph, node).shape, groups_of(node)):
            key = _weight_key(node)
            codes[key] = max(codes.get(key, 0), _largest_code(source_of(node.args[0]), spans, rules))
    return codes


def _largest_code(source: fx.Node, spans: Mapping[str, Range], rules: Rules) -> int:
    """The largest code that a quantized tensor can hold, whatever the image.

    Not what calibration saw: other images go beyond it, and are cut off at the last code. Only a bound of the operator
    itself excludes codes, such as that of a ReLU6 that shares a wider grid.
    """
    scale, zero = grid(spans[source.name], rules)
    bound = _bound(source)
    last = torch.iinfo(zero.dtype).max
    return last if bound is None else max(min(round(bound / float(scale)) + int(zero), last), int(zero))


def _bound(node: fx.Node) -> float | None:
    """The largest value that an operator puts out on any input; None if there is none."""
    if CARRIERS.get(node.target) is not None:
        bounds = [_bound(source) for source in tensors_into(node)]
        return None if None in bounds else max(bounds)  # type: ignore[type-var]
    if node.target in (aten.hardtanh.default, aten.clamp.default):
        last = node.args[2] if len(node.args) > 2 else 1.0 if node.target is aten.hardtanh.default else None
        return float(last) if isinstance(last, int | float) else None
    return _BOUNDS.get(node.target)


def grid_constants(graph: fx.GraphModule, stem: str, scale: Tensor, zero: Tensor) -> list[fx.Node]:
    """Nodes that read a grid's scale and zero point, inserted where the graph stands."""
    return [add_constant(graph, f"{stem}_{what}", value) for what, value in (("scale", scale), ("zero", zero))]
