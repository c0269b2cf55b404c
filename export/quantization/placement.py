"""Puts Quantize-Dequantize pairs into a graph where a runtime's `Rules` want them.

A pair stands on a tensor: whoever makes the tensor sees the Quantize, whoever reads it the
Dequantize, and a runtime that fuses both sides runs the operator between two pairs in integers.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx

from export.graph import (
    CONVS,
    TRANSPOSED,
    aten,
    becomes_convolution,
    clean,
    convolutions,
    fused_end,
    groups_of,
    layer_name,
    padding_of,
    reads_signs,
    transposed_as_convolution,
    weight_of,
)
from export.programs.compiled import compiled_once
from export.quantization.carriers import (
    CARRIERS,
    IN_FLOAT,
    carrier_of,
    known_range,
    moves_one_grid,
    scale_groups,
    source_of,
    span_of,
    tensors_into,
)
from export.quantization.extremes import of_extremes
from export.quantization.integer_weights import grid_constants, quantize_weights
from export.quantization.learnt import NOTHING, Learnt
from export.quantization.places import wants_places
from export.quantization.qdq import PAIR
from export.quantization.rules import Rules
from export.quantization.saturation import depthwise
from export.quantization.scales import Range, grid
from export.quantization.stretch import read_stretched, stretch

_OPERATORS = (aten.cat.default, aten.add.Tensor, aten.mul.Tensor)

# The union of what any rules choose.
_ANY = Rules(
    activations="uint8",
    carriers=frozenset(CARRIERS.values()),
    behind_carriers=True,
    outputs=True,
    adds="both",
    one_scale_concat=False,
    transposed_as_convolution=False,
)


@compiled_once
def place(
    graph: fx.GraphModule,
    ranges: Mapping[str, Range],
    keep_float: Mapping[str, str],
    rules: Rules,
    learnt: Learnt = NOTHING,
) -> fx.GraphModule:
    """A copy of a folded graph with Quantize-Dequantize pairs where `rules` want them.

    Args:
        graph: float, with batch norms folded.
        ranges: of every activation that may be quantized, by the name of its node.
        keep_float: layer names or patterns (`head`, `encoder.0.*`) that stay in float, and why; an operator without
            weights is `operator:` and the name of its node (`operator:cat_1`).
        learnt: grids that weights lie on already, and what biases are corrected with.
    """
    graph = copy.deepcopy(graph)
    learnt.mark(graph)
    for node in graph.graph.nodes:
        if _operator_in_float(node, keep_float):
            node.meta[IN_FLOAT] = True
    integer = [node for node in convolutions(graph) if why_float(graph, node, ranges, keep_float, rules) is None]
    transposed_as_convolution(graph, [node for node in integer if _only_as_convolution(graph, node, ranges, rules)])
    ranges = stretch(graph, _chosen(graph, integer, rules), ranges, rules)
    chosen = _chosen(graph, integer, rules)
    known = {name: known_range(graph, name, ranges) for name in chosen}
    scales = scale_groups(graph, chosen, known, rules)
    spans = {name: span_of(known, group) for name, group in scales.items()}
    quantize_weights(graph, integer, spans, rules)
    for name, span in spans.items():
        if rules.behind_carriers or not moves_one_grid(graph, name, scales):
            _quantize_tensor(graph, name, span, rules)
    read_stretched(graph)
    clean(graph)
    graph.meta["fills_in"] = rules.fills_in
    graph.meta["integers_in_bits"] = rules.reads_bits
    return graph


def float_layers(
    graph: fx.GraphModule, ranges: Mapping[str, Range], keep_float: Mapping[str, str], rules: Rules
) -> list[tuple[str, str]]:
    """The layers that stay in float under these rules, each with why."""
    reasons = ((layer_name(node), why_float(graph, node, ranges, keep_float, rules)) for node in convolutions(graph))
    return [(name, why) for name, why in reasons if why is not None]


def candidates(graph: fx.GraphModule) -> set[str]:
    """The names of all activations that the rules of some runtime may choose: what calibration watches."""
    return _chosen(graph, list(convolutions(graph)), _ANY)


def operators(graph: fx.GraphModule) -> list[fx.Node]:
    """Concatenations, sums and products of tensors: what may stay in float besides layers, in order."""
    return [node for node in graph.graph.nodes if node.target in _OPERATORS and len(_tensors_of(node)) > 1]


def operator_name(node: fx.Node) -> str:
    """What `keep_float` calls an operator without weights."""
    return f"operator:{node.name}"


def _operator_in_float(node: fx.Node, keep_float: Mapping[str, str]) -> bool:
    return node.target in _OPERATORS and any(matches(operator_name(node), pattern) for pattern in keep_float)


def _tensors_of(node: fx.Node) -> list[fx.Node]:
    return [source for source in node.all_input_nodes if source.op != "get_attr"]


def matches(name: str, pattern: str) -> bool:
    """Whether a layer is the one named, lies below the module named, or fits the pattern."""
    return name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def why_float(
    graph: fx.GraphModule, node: fx.Node, ranges: Mapping[str, Range], keep_float: Mapping[str, str], rules: Rules
) -> str | None:
    """Why a layer stays in float, in a few words; None where it is put in integers."""
    for pattern, why in keep_float.items():
        if matches(layer_name(node), pattern):
            return why
    if reads_signs(node):
        return "it reads signs: its sums are exact as they are, and a grid with a zero point has no exact -1 and +1"
    return _why_of_runtime(graph, node, ranges, keep_float, rules)


def _why_of_runtime(
    graph: fx.GraphModule, node: fx.Node, ranges: Mapping[str, Range], keep_float: Mapping[str, str], rules: Rules
) -> str | None:
    """Why its runtime wants it in float."""
    if rules.outputs and any(_operator_in_float(user, keep_float) for user in fused_end(node).users):
        return "what reads it stays in float: this runtime has integer kernels only for what puts out integers"
    if rules.outputs and any(map(wants_places, fused_end(node).users)):
        return "where its largest values lie is looked for (unpooling), and of integers many are equal"
    # Where a convolution runs in integers only between two pairs, that of the logits cannot.
    if rules.outputs and fused_end(node) in _logits(graph):
        return "it puts out the logits: this runtime has integer kernels only for what puts out integers"
    if _only_as_convolution(graph, node, ranges, rules) and not becomes_convolution(graph, node):
        return "this runtime has no right integer kernel for such a transposed convolution"
    if _channels(graph, node) < rules.least_channels:
        return (
            f"it has under {rules.least_channels} channels (or a 1x1 kernel in groups), for which integers do not pay"
        )
    return _computed_wrongly(graph, node, ranges, rules)


def _computed_wrongly(graph: fx.GraphModule, node: fx.Node, ranges: Mapping[str, Range], rules: Rules) -> str | None:
    """Of which kind a layer is that the runtime has an integer kernel for which computes another one."""
    kernel = "this runtime's integer kernel computes another layer where"
    if not rules.padding_beyond_kernel and _padded_beyond_kernel(graph, node) and _zero_point(node, ranges, rules):
        return f"{kernel} one input channel a group is padded by the kernel's size or more"
    if _even_kernel(graph, node) and weight_of(graph, node).shape[1] < rules.channels_under_even_kernels:
        return f"{kernel} a side of 4, 6, ... reads under {rules.channels_under_even_kernels} channels"
    if not rules.padded_groups_of_volumes and _padded_groups(graph, node) and _zero_point(node, ranges, rules):
        return f"{kernel} a padded 3-D convolution has groups"
    if not rules.extremes and of_extremes(node.args[0]):
        return "this runtime rounds a largest or smallest value over axes wrongly"
    return None


def _even_kernel(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it is a convolution, in one group, whose kernel has an even side of 4 or more."""
    dense = node.target in CONVS and groups_of(node) == 1
    return dense and any(side >= 4 and side % 2 == 0 for side in weight_of(graph, node).shape[2:])


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
    return rules.activations == "uint8" and ranges[source_of(node.args[0]).name][0] < 0


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
    chosen = {source_of(node.args[0]).name for node in integer}
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
        if carrier_of(node) in rules.carriers:
            for source in tensors_into(node):
                if source.name not in chosen:
                    chosen.add(source.name)
                    waiting.append(source.name)
    return chosen


def _comes_from(argument: Any, integer: list[fx.Node]) -> bool:
    return any(argument is node or argument is fused_end(node) for node in integer)


def _added(node: fx.Node, rules: Rules) -> list[fx.Node]:
    """What to quantize of an addition's inputs; nothing of what is no addition of two tensors."""
    inputs = [arg for arg in node.args[:2] if isinstance(arg, fx.Node)]
    if IN_FLOAT in node.meta:
        return []
    if node.target is not aten.add.Tensor or len(inputs) < 2 or not all(map(_is_float, inputs)):
        return []
    if not rules.extremes and any(map(of_extremes, inputs)):
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


def _quantize_tensor(graph: fx.GraphModule, name: str, span: Range, rules: Rules) -> None:
    (node,) = (node for node in graph.graph.nodes if node.name == name)
    with graph.graph.inserting_after(node):
        pair = graph.graph.call_function(PAIR)
    with graph.graph.inserting_before(pair):
        constants = grid_constants(graph, name, *grid(span, rules))
    # Who asks for the shape alone needs no integers, and would be one more reader to fuse.
    readers = [
        user
        for user in node.users
        if user.op != "output" and user.target is not aten.sym_size.int and IN_FLOAT not in user.meta
        if not wants_places(user)
    ]
    pair.args = (node, *constants, 0)
    for reader in readers:
        reader.replace_input_with(node, pair)
