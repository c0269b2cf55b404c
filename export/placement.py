"""Puts Quantize-Dequantize pairs into a graph where a runtime's `Rules` want them.

A pair stands on a tensor: whoever makes the tensor sees the Quantize, whoever reads it the
Dequantize, and a runtime that fuses both sides runs the operator between two pairs in integers.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from export.graph import (
    CONVS,
    TRANSPOSED,
    aten,
    clean,
    convolutions,
    layer_name,
    transposed_as_convolution,
    weight_of,
)
from export.quantize import PAIR
from export.rules import Carrier, Rules

Range = tuple[float, float]

_CARRIERS: dict[Any, Carrier] = {
    aten.max_pool2d.default: "max_pool",
    aten.max_pool3d.default: "max_pool",
    aten.cat.default: "concat",
    aten.pixel_shuffle.default: "shuffle",
    aten.upsample_nearest2d.vec: "nearest",
    aten.upsample_nearest3d.vec: "nearest",
}
# The union of what any rules choose.
_ANY = Rules(
    activations="uint8",
    carriers=frozenset(_CARRIERS.values()),
    behind_carriers=True,
    outputs=True,
    adds="both",
    one_scale_concat=False,
    transposed_as_convolution=False,
    per_channel_transposed=False,
)
# Fused into the convolution before them by every runtime: the pair stands behind, never between.
_ACTIVATIONS = (aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default)
_ADDS = (aten.add.Tensor,)


def place(
    graph: fx.GraphModule, ranges: Mapping[str, Range], keep_float: Collection[str], rules: Rules
) -> fx.GraphModule:
    """A copy of a folded graph with Quantize-Dequantize pairs where `rules` want them.

    Args:
        graph: float, with batch norms folded.
        ranges: of every activation that may be quantized, by the name of its node.
        keep_float: layer names or patterns (`head`, `encoder.0.*`) that stay in float.
    """
    graph = copy.deepcopy(graph)
    kept = {node.name for node in convolutions(graph) if _kept(graph, node, keep_float, rules)}
    if rules.transposed_as_convolution:
        transposed_as_convolution(graph)
    integer = [node for node in convolutions(graph) if node.name not in kept]
    chosen = _chosen(graph, integer, rules)
    scales = _scale_groups(graph, chosen, rules)
    known = {name: _known_range(graph, name, ranges) for name in chosen}
    for node in integer:
        _quantize_weight(graph, node, rules)
    for name, group in scales.items():
        if not rules.behind_carriers and _moves_one_grid(graph, name, scales):
            continue
        lows, highs = zip(*(known[member] for member in group), strict=True)
        _quantize_tensor(graph, name, (min(lows), max(highs)), rules)
    clean(graph)
    return graph


def float_layers(graph: fx.GraphModule, keep_float: Collection[str], rules: Rules) -> list[str]:
    """The names of the layers that stay in float under these rules."""
    return [layer_name(node) for node in convolutions(graph) if _kept(graph, node, keep_float, rules)]


def candidates(graph: fx.GraphModule) -> set[str]:
    """The names of all activations that the rules of some runtime may choose: what calibration watches."""
    return _chosen(graph, list(convolutions(graph)), _ANY)


def matches(name: str, pattern: str) -> bool:
    """Whether a layer is the one named, lies below the module named, or fits the pattern."""
    return name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def _kept(graph: fx.GraphModule, node: fx.Node, keep_float: Collection[str], rules: Rules) -> bool:
    if any(matches(layer_name(node), pattern) for pattern in keep_float):
        return True
    weight = weight_of(graph, node)
    return min(weight.shape[0], weight.shape[1]) < rules.least_channels


def _chosen(graph: fx.GraphModule, integer: list[fx.Node], rules: Rules) -> set[str]:
    """Names of the tensors that get a pair."""
    chosen = {_source(node.args[0]).name for node in integer}
    if rules.outputs:
        logits = _outputs(graph)
        chosen |= {end.name for end in map(_fused_end, integer) if end not in logits}
    if rules.adds != "none":
        for node in graph.graph.nodes:
            if node.target in _ADDS and all(isinstance(arg, fx.Node) for arg in node.args[:2]):
                inputs = [
                    arg for arg in node.args[:2] if rules.adds == "both" or arg.target not in (*CONVS, *TRANSPOSED)
                ]
                if any(_comes_from(arg, integer) for arg in node.args[:2]):
                    chosen |= {arg.name for arg in inputs}
                    if rules.adds == "both":
                        chosen.add(_fused_end(node).name)
    waiting = list(chosen)
    by_name = {node.name: node for node in graph.graph.nodes}
    while waiting:
        node = by_name[waiting.pop()]
        if _CARRIERS.get(node.target) in rules.carriers:
            for source in _tensors_into(node):
                if source.name not in chosen:
                    chosen.add(source.name)
                    waiting.append(source.name)
    return chosen


def _comes_from(node: fx.Node, integer: list[fx.Node]) -> bool:
    return node in integer or (node.target in _ACTIVATIONS and node.args[0] in integer)


def _fused_end(node: fx.Node) -> fx.Node:
    """The last node a runtime fuses into this one: its activation, where that is its only reader."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and readers[0].target in _ACTIVATIONS else node


def _outputs(graph: fx.GraphModule) -> list[fx.Node]:
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    return list(output.all_input_nodes)


def _source(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _tensors_into(node: fx.Node) -> list[fx.Node]:
    first = node.args[0]
    return list(first) if isinstance(first, list | tuple) else [_source(first)]  # type: ignore[arg-type]


def _scale_groups(graph: fx.GraphModule, chosen: set[str], rules: Rules) -> dict[str, frozenset[str]]:
    """For every chosen tensor, the tensors whose ranges its own must cover.

    Max pooling, shuffling and repeating change no value: their output is quantized exactly as
    their input. A concatenation's output covers its inputs; under `one_scale_concat` they share.
    """
    parent = {name: name for name in chosen}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    covers: dict[str, set[str]] = {name: {name} for name in chosen}
    for node in graph.graph.nodes:
        carrier = _CARRIERS.get(node.target)
        if node.name not in chosen or carrier not in rules.carriers:
            continue
        for source in _tensors_into(node):
            if carrier != "concat" or rules.one_scale_concat:
                parent[root(node.name)] = root(source.name)
            else:
                covers[node.name].add(source.name)
    shared: dict[str, set[str]] = {}
    for name in chosen:
        shared.setdefault(root(name), set()).update(covers[name])
    return {node.name: frozenset(shared[root(node.name)]) for node in graph.graph.nodes if node.name in chosen}


def _moves_one_grid(graph: fx.GraphModule, name: str, scales: Mapping[str, frozenset[str]]) -> bool:
    """Whether a tensor is a carrier's output and already lies on its inputs' one grid."""
    (node,) = (node for node in graph.graph.nodes if node.name == name)
    if node.target not in _CARRIERS:
        return False
    # By now the inputs are read through their pairs.
    sources = [source.args[0] if source.target is PAIR else source for source in _tensors_into(node)]
    return all(scales.get(_source(source).name) == scales[name] for source in sources)


def _known_range(graph: fx.GraphModule, name: str, ranges: Mapping[str, Range]) -> Range:
    """The calibrated range of a tensor; carriers made by a rewrite have their input's."""
    while name not in ranges:
        (node,) = (node for node in graph.graph.nodes if node.name == name)
        name = _tensors_into(node)[0].name
    return ranges[name]


def _quantize_weight(graph: fx.GraphModule, node: fx.Node, rules: Rules) -> None:
    """Symmetric int8, one scale an output channel (Krishnamoorthi 2018, arXiv 1806.08342, section 3.1)."""
    weight = weight_of(graph, node)
    axis = 1 if node.target in TRANSPOSED else 0
    if axis == 1 and not rules.per_channel_transposed:
        scale = weight.abs().max() / 127
    else:
        scale = weight.abs().amax([place for place in range(weight.dim()) if place != axis]) / 127
    # A channel of zeros needs some scale; any keeps it zero.
    scale = torch.where(scale > 0, scale, 1.0)
    with graph.graph.inserting_before(node):
        pair = _pair(graph, _source(node.args[1]), scale, torch.zeros_like(scale, dtype=torch.int8), axis)
    node.args = (node.args[0], pair, *node.args[2:])


def _quantize_tensor(graph: fx.GraphModule, name: str, span: Range, rules: Rules) -> None:
    (node,) = (node for node in graph.graph.nodes if node.name == name)
    scale, zero = grid(span, rules)
    with graph.graph.inserting_after(node):
        # Inserted in reverse order, since each lands right behind the node.
        pair = graph.graph.call_function(PAIR)
    with graph.graph.inserting_before(pair):
        constants = [_constant(graph, f"{name}_{what}", value) for what, value in (("scale", scale), ("zero", zero))]
    readers = [user for user in node.users if user is not pair and user.op != "output"]
    pair.args = (node, *constants, 0)
    for reader in readers:
        reader.replace_input_with(node, pair)


def grid(span: Range, rules: Rules) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (uint8 or int8) of a tensor with this range; zero is always on the grid."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    if rules.activations == "uint8":
        scale = (high - low) / 255 or 1.0
        return torch.tensor(scale), torch.tensor(round(-low / scale), dtype=torch.uint8)
    scale = max(-low, high) / 127 or 1.0
    return torch.tensor(scale), torch.tensor(0, dtype=torch.int8)


def _pair(graph: fx.GraphModule, node: fx.Node, scale: Tensor, zero: Tensor, axis: int) -> fx.Node:
    stem = str(node.target).replace(".", "_")
    constants = [_constant(graph, f"{stem}_{what}", value) for what, value in (("scale", scale), ("zero", zero))]
    return graph.graph.call_function(PAIR, (node, *constants, axis))


def _constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph.register_buffer(name, value)
    return graph.graph.get_attr(name)
