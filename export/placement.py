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
    add_constant,
    aten,
    becomes_convolution,
    clean,
    convolutions,
    fused_end,
    groups_of,
    layer_name,
    padding_of,
    transposed_as_convolution,
    weight_of,
)
from export.quantize import PAIR
from export.rules import Carrier, Rules
from export.saturation import depthwise, outputs_of_transposed, safe_scale

Range = tuple[float, float]

_CARRIERS: dict[Any, Carrier] = {
    aten.max_pool2d.default: "max_pool",
    aten.max_pool3d.default: "max_pool",
    aten.cat.default: "concat",
    aten.pixel_shuffle.default: "shuffle",
    aten.slice.Tensor: "shuffle",
    aten.upsample_nearest2d.vec: "nearest",
    aten.upsample_nearest3d.vec: "nearest",
}
_BOUNDS: dict[Any, float] = {
    aten.relu6.default: 6.0,
    aten.sigmoid.default: 1.0,
    aten.hardsigmoid.default: 1.0,
    aten.tanh.default: 1.0,
    aten.softmax.int: 1.0,
    aten._softmax.default: 1.0,
}
"""The largest value of operators that have one."""
# The union of what any rules choose.
_ANY = Rules(
    activations="uint8",
    carriers=frozenset(_CARRIERS.values()),
    behind_carriers=True,
    outputs=True,
    adds="both",
    one_scale_concat=False,
    transposed_as_convolution=False,
)


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
    integer = [node for node in convolutions(graph) if not _stays_float(graph, node, ranges, keep_float, rules)]
    transposed_as_convolution(graph, [node for node in integer if _only_as_convolution(graph, node, ranges, rules)])
    chosen = _chosen(graph, integer, rules)
    scales = _scale_groups(graph, chosen, rules)
    known = {name: _known_range(graph, name, ranges) for name in chosen}
    spans = {name: _span(known, group) for name, group in scales.items()}
    pairs: dict[tuple[fx.Node, int], fx.Node] = {}
    codes = _largest_codes(graph, integer, spans, rules) if rules.pairs_in_16_bits else {}
    for node in integer:
        _quantize_weight(graph, node, pairs, codes.get(_weight_key(node)))
    for name, span in spans.items():
        if rules.behind_carriers or not _moves_one_grid(graph, name, scales):
            _quantize_tensor(graph, name, span, rules)
    clean(graph)
    return graph


def _span(known: Mapping[str, Range], group: Collection[str]) -> Range:
    lows, highs = zip(*(known[member] for member in group), strict=True)
    return min(lows), max(highs)


def float_layers(
    graph: fx.GraphModule, ranges: Mapping[str, Range], keep_float: Collection[str], rules: Rules
) -> list[str]:
    """The names of the layers that stay in float under these rules."""
    return [layer_name(node) for node in convolutions(graph) if _stays_float(graph, node, ranges, keep_float, rules)]


def candidates(graph: fx.GraphModule) -> set[str]:
    """The names of all activations that the rules of some runtime may choose: what calibration watches."""
    return _chosen(graph, list(convolutions(graph)), _ANY)


def matches(name: str, pattern: str) -> bool:
    """Whether a layer is the one named, lies below the module named, or fits the pattern."""
    return name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def _stays_float(
    graph: fx.GraphModule, node: fx.Node, ranges: Mapping[str, Range], keep_float: Collection[str], rules: Rules
) -> bool:
    if any(matches(layer_name(node), pattern) for pattern in keep_float):
        return True
    # Where a convolution runs in integers only between two pairs, that of the logits cannot.
    if rules.outputs and fused_end(node) in _logits(graph):
        return True
    if _only_as_convolution(graph, node, ranges, rules) and not becomes_convolution(graph, node):
        return True
    if not rules.padding_beyond_kernel and _padded_beyond_kernel(graph, node) and _zero_point(node, ranges, rules):
        return True
    if not rules.padded_groups_of_volumes and _padded_groups(graph, node) and _zero_point(node, ranges, rules):
        return True
    return _channels(graph, node) < rules.least_channels


def _padded_groups(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it is a padded 3-D convolution in groups that is not depthwise."""
    weight = weight_of(graph, node)
    grouped = node.target in CONVS and weight.dim() == 5 and groups_of(node) > 1
    padded = node.args[4:5] == ("same",) or any(padding_of(node))
    return grouped and padded and not depthwise(True, weight.shape, groups_of(node))


def _padded_beyond_kernel(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it is a convolution of one input channel a group with places where its kernel sees padding alone."""
    one, *kernel = weight_of(graph, node).shape[1:]
    return one == 1 and any(zeros >= side for zeros, side in zip(padding_of(node), kernel, strict=False))


def _zero_point(node: fx.Node, ranges: Mapping[str, Range], rules: Rules) -> bool:
    """Whether zero is not the grid's own zero in what it reads."""
    return rules.activations == "uint8" and ranges[_source(node.args[0]).name][0] < 0


def _only_as_convolution(graph: fx.GraphModule, node: fx.Node, ranges: Mapping[str, Range], rules: Rules) -> bool:
    """Whether it is a transposed convolution without a (right) integer kernel: in groups, or with a zero point."""
    if node.target not in TRANSPOSED:
        return False
    ragged = weight_of(graph, node).shape[0] % rules.transposed_multiple != 0
    return rules.transposed_as_convolution or ragged or groups_of(node) > 1 or _zero_point(node, ranges, rules)


def _channels(graph: fx.GraphModule, node: fx.Node) -> int:
    """The fewer of its input and output channels; none for what has no integer kernel with few channels a group."""
    outside, inside, *kernel = weight_of(graph, node).shape
    if groups_of(node) == 1:
        return min(outside, inside)
    # NVIDIA ModelOpt quantizes grouped convolutions for TensorRT if their kernel is 3 or larger.
    return outside if min(kernel) >= 3 else 0


def _chosen(graph: fx.GraphModule, integer: list[fx.Node], rules: Rules) -> set[str]:
    """Names of the tensors that get a pair."""
    chosen = {_source(node.args[0]).name for node in integer}
    if rules.outputs:
        logits = _logits(graph)
        chosen |= {end.name for end in map(fused_end, integer) if end not in logits}
    if rules.adds != "none":
        for node in graph.graph.nodes:
            added = _added(node, rules) if any(_comes_from(arg, integer) for arg in node.args[:2]) else []
            chosen |= {arg.name for arg in added}
            if added and rules.adds == "both":
                chosen.add(fused_end(node).name)
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


def _comes_from(argument: Any, integer: list[fx.Node]) -> bool:
    return any(argument is node or argument is fused_end(node) for node in integer)


def _added(node: fx.Node, rules: Rules) -> list[fx.Node]:
    """What to quantize of an addition's inputs; nothing of what is no addition of two tensors."""
    inputs = [arg for arg in node.args[:2] if isinstance(arg, fx.Node)]
    if node.target is not aten.add.Tensor or len(inputs) < 2 or not all(map(_is_float, inputs)):
        return []
    if rules.adds == "both":
        return inputs
    branches = [arg for arg in inputs if arg.target in (*CONVS, *TRANSPOSED)]
    if len(branches) < 2:
        return [arg for arg in inputs if arg not in branches]
    # Of two convolutions the skip is the one with less before it: the projection.
    return [min(branches, key=lambda branch: len(_before(branch)))]


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _before(node: fx.Node) -> set[fx.Node]:
    found, waiting = {node}, [node]
    while waiting:
        new = [source for source in waiting.pop().all_input_nodes if source not in found]
        found.update(new)
        waiting += new
    return found


def _logits(graph: fx.GraphModule) -> list[fx.Node]:
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
    """The calibrated range of a tensor; what a rewrite shuffled or cropped has its input's."""
    while name not in ranges:
        (node,) = (node for node in graph.graph.nodes if node.name == name)
        assert _CARRIERS.get(node.target) == "shuffle", f"{name} was not calibrated"
        name = _tensors_into(node)[0].name
    return ranges[name]


def _quantize_weight(
    graph: fx.GraphModule, node: fx.Node, pairs: dict[tuple[fx.Node, int], fx.Node], code: int | None
) -> None:
    """Symmetric int8, one scale an output channel (Krishnamoorthi 2018, arXiv 1806.08342, section 3.1).

    Layers that share a weight share its pair; a layer that reads it along the other axis has its own.

    Args:
        code: the largest of the layer's input, where sums of pairs must stay within 16 bits.
    """
    source, axis = _weight_key(node)
    if (source, axis) not in pairs:
        weight_OCT = by_output(graph, node)
        scale = weight_OCT.abs().amax((1, 2)) / 127
        # A channel of zeros needs some scale; any keeps it zero.
        scale = torch.where(scale > torch.finfo(scale.dtype).tiny, scale, 1.0)
        if code is not None:
            finest, scale = scale, safe_scale(weight_OCT, scale, code)
            graph.meta.setdefault("coarser", {})[layer_name(node)] = int((scale > finest).sum())
        with graph.graph.inserting_after(source):
            pair = graph.graph.call_function(PAIR)
        with graph.graph.inserting_before(pair):
            constants = _constants(graph, str(source.target), scale, torch.zeros_like(scale, dtype=torch.int8))
        pair.args = (source, *constants, axis)
        pairs[source, axis] = pair
    node.update_arg(1, pairs[source, axis])


def _quantize_tensor(graph: fx.GraphModule, name: str, span: Range, rules: Rules) -> None:
    (node,) = (node for node in graph.graph.nodes if node.name == name)
    with graph.graph.inserting_after(node):
        pair = graph.graph.call_function(PAIR)
    with graph.graph.inserting_before(pair):
        constants = _constants(graph, name, *grid(span, rules))
    # Who asks for the shape alone needs no integers, and would be one more reader to fuse.
    readers = [user for user in node.users if user.op != "output" and user.target is not aten.sym_size.int]
    pair.args = (node, *constants, 0)
    for reader in readers:
        reader.replace_input_with(node, pair)


def by_output(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """A layer's weight as (output channels of one scale, input channels of a group, everything else)."""
    weight, groups = weight_of(graph, node), groups_of(node)
    if node.target not in TRANSPOSED:
        return weight.reshape(*weight.shape[:2], -1)
    return outputs_of_transposed(weight, groups)


def _weight_key(node: fx.Node) -> tuple[fx.Node, int]:
    """What layers that share a quantized weight have in common: the weight, and the axis of its scales."""
    return _source(node.args[1]), 1 if node.target in TRANSPOSED else 0


def _largest_codes(
    graph: fx.GraphModule, integer: list[fx.Node], spans: Mapping[str, Range], rules: Rules
) -> dict[tuple[fx.Node, int], int]:
    """The largest code that each weight is multiplied with in pairs, in whichever of the layers that share it."""
    codes: dict[tuple[fx.Node, int], int] = {}
    for node in integer:
        if not depthwise(node.target in CONVS, weight_of(graph, node).shape, groups_of(node)):
            key = _weight_key(node)
            codes[key] = max(codes.get(key, 0), _largest_code(_source(node.args[0]), spans, rules))
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
    if _CARRIERS.get(node.target) is not None:
        bounds = [_bound(source) for source in _tensors_into(node)]
        return None if None in bounds else max(bounds)  # type: ignore[type-var]
    if node.target in (aten.hardtanh.default, aten.clamp.default):
        last = node.args[2] if len(node.args) > 2 else 1.0 if node.target is aten.hardtanh.default else None
        return float(last) if isinstance(last, int | float) else None
    return _BOUNDS.get(node.target)


def grid(span: Range, rules: Rules) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (uint8 or int8) of a tensor with this range; zero is always on the grid."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    if rules.activations == "uint8":
        scale = _usable((high - low) / 255)
        return torch.tensor(scale), torch.tensor(round(-low / scale), dtype=torch.uint8)
    return torch.tensor(_usable(max(-low, high) / 127)), torch.tensor(0, dtype=torch.int8)


def _usable(scale: float) -> float:
    # A tensor that is all but zero needs some scale; one that float32 cannot hold would divide by zero.
    return scale if scale > torch.finfo(torch.float32).tiny else 1.0


def _constants(graph: fx.GraphModule, stem: str, scale: Tensor, zero: Tensor) -> list[fx.Node]:
    return [add_constant(graph, f"{stem}_{what}", value) for what, value in (("scale", scale), ("zero", zero))]
