"""A network as a graph of its own operations, folded and rewritten for integer runtimes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

aten = torch.ops.aten
Dynamic = Literal["batch", "size"]

CONVS = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
)
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
LINEAR = (aten.linear.default,)
LAYERS = (*CONVS, *TRANSPOSED, *LINEAR)
_RELUS = (aten.relu.default, aten.relu6.default)
_CLAMPS = (aten.hardtanh.default, aten.clamp.default)
_BATCH_NORM = aten._native_batch_norm_legit_no_training.default
_END = sys.maxsize
_LEAVES = ("input", "weight", "bias")


def convolutions(graph: fx.GraphModule) -> Iterator[fx.Node]:
    """Every convolution, transposed convolution and linear layer whose weight is a constant, in order."""
    for node in graph.graph.nodes:
        if node.target in LAYERS and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr":
            yield node


def layer_name(node: fx.Node) -> str:
    """The path of its weight that a user knows a convolution by, such as `encoder.0.3` or `head`."""
    # A weight that was untied from another call of the same module ends in an underscore.
    return str(_source(node, 1).target).rstrip("_").removesuffix(".weight")


def weight_of(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """The weight tensor of a convolution."""
    return constant(graph, _source(node, 1))


def bias_of(graph: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """The bias of a convolution; None if it has none."""
    return constant(graph, _source(node, 2)) if len(node.args) > 2 and node.args[2] is not None else None


def reads_signs(node: fx.Node) -> bool:
    """Whether a layer reads what is -1 or +1 everywhere."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.target in (aten._to_copy.default, aten.to.dtype):
        source = source.args[0]
    return isinstance(source, fx.Node) and source.target is aten.where.Scalar and source.args[1:] == (1.0, -1.0)


def fused_end(node: fx.Node) -> fx.Node:
    """The last node that every runtime fuses into this one: its ReLU or ReLU6, where that is its only reader."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and _is_relu(readers[0]) else node


def _is_relu(node: fx.Node) -> bool:
    # A clamp from below zero is no part of an integer range: a runtime keeps it as work of its own.
    return node.target in _RELUS or (node.target in _CLAMPS and node.args[1:2] in ((0,), (0.0,)))


def fold_weights(graph: fx.GraphModule) -> int:
    """Compute, once, each weight and bias that is computed from constants alone; returns how many.

    Weight norm, spectral norm and weight standardization leave plain convolutions.
    """
    stored: set[fx.Node] = set()
    computed: set[Any] = set()
    found = []
    for node in graph.graph.nodes:
        if node.target in LAYERS:
            places = [place for place, source in enumerate(node.args[1:3], 1) if source in computed]
            found += [(node, place, _value(graph, node.args[place])) for place in places]
        elif node.op == "get_attr":
            stored.add(node)
        elif node.op == "call_function" and node.all_input_nodes and {*node.all_input_nodes} <= stored | computed:
            computed.add(node)
    if not found:
        clean(graph)
        return 0
    for conv, place, _ in found:
        conv.update_arg(place, None)
    # First, so that the module's own names are free again.
    clean(graph)
    for conv, place, value in found:
        modules = list(conv.meta.get("nn_module_stack", {}).values())
        path = modules[-1][0] if modules else conv.name
        _give(graph, conv, place, f"{path}.{_LEAVES[place]}" if path else _LEAVES[place], value)
    clean(graph)
    return len(found)


def drop_empty(graph: fx.GraphModule) -> int:
    """Take tensors without channels out of concatenations; returns how many.

    Encoders put them where they have no features, and nothing can be calibrated on no value.
    """
    dropped = 0
    for node in graph.graph.nodes:
        if node.target is aten.cat.default:
            full = [source for source in node.args[0] if not _is_empty(source)]
            dropped += len(node.args[0]) - len(full)
            node.update_arg(0, full)
    if dropped:
        clean(graph)
    return dropped


def _is_empty(node: fx.Node) -> bool:
    # An axis that is left open is no int.
    return any(isinstance(side, int) and side == 0 for side in node.meta["val"].shape)


@torch.no_grad()
def _value(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    if node.op == "get_attr":
        return constant(graph, node)
    known = {source: _value(graph, source) for source in node.all_input_nodes}
    assert callable(node.target)
    return node.target(*fx.map_arg(node.args, known.__getitem__), **fx.map_arg(node.kwargs, known.__getitem__))


def fold_batch_norm(graph: fx.GraphModule) -> int:
    """Fold each BatchNorm into the convolution before it, in place; returns how many were folded.

    One stays where its convolution's output is used elsewhere too. A convolution that is called
    several times gets a weight of its own for each BatchNorm that follows it.
    """
    folded: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    count = 0
    for norm in list(graph.graph.nodes):
        if norm.target is not _BATCH_NORM:
            continue
        conv = norm.args[0]
        if conv.target not in (*CONVS, *TRANSPOSED) or len(conv.users) > 1 or conv.args[1].op != "get_attr":
            continue
        key = (conv.target, *conv.args[1:3], groups_of(conv), *norm.args[1:])
        if key in folded:
            conv.args = (conv.args[0], *folded[key], *conv.args[3:])
        else:
            weight, bias = _folded(graph, conv, norm)
            set_constant(graph, conv, 1, weight)
            set_constant(graph, conv, 2, bias)
            folded[key] = conv.args[1:3]
        for output in list(norm.users):
            output.replace_all_uses_with(conv)
            graph.graph.erase_node(output)
        # Now, so that a second norm in a row finds the convolution with itself as the only reader.
        graph.graph.erase_node(norm)
        count += 1
    if count:
        clean(graph)
    return count


def _folded(graph: fx.GraphModule, conv: fx.Node, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """The weight and the bias with which a convolution does what its batch norm did."""
    given: Any = norm.args
    gamma, beta, mean, variance = (None if node is None else constant(graph, node).double() for node in given[1:5])
    assert mean is not None and variance is not None
    scale = torch.rsqrt(variance + given[6]) * (1.0 if gamma is None else gamma)
    weight, bias = weight_of(graph, conv), bias_of(graph, conv)
    shift = ((0.0 if bias is None else bias.double()) - mean) * scale + (0.0 if beta is None else beta)
    return (weight.double() * _per_output(conv, scale, weight)).to(weight.dtype), shift.to(weight.dtype)


def _owns_weight(conv: fx.Node) -> bool:
    weight = conv.args[1]
    return isinstance(weight, fx.Node) and weight.op == "get_attr" and len(weight.users) == 1


def _per_output(conv: fx.Node, scale: Tensor, weight: Tensor) -> Tensor:
    """One value for each output channel, in the shape that multiplies a weight."""
    ones = [1] * (weight.dim() - 2)
    if conv.target not in TRANSPOSED:
        return scale.reshape(-1, 1, *ones)
    # A transposed weight is (in, out / groups, ...): its outputs lie group by group.
    inside = weight.shape[0] // groups_of(conv)
    return scale.reshape(groups_of(conv), 1, -1).expand(-1, inside, -1).reshape(weight.shape[0], -1, *ones)


def transposed_as_convolution(graph: fx.GraphModule, nodes: Collection[fx.Node] | None = None) -> int:
    """Write transposed convolutions as a convolution and a pixel shuffle, in place; returns how many.

    Each offset inside a stride is one output channel of a small convolution (Shi et al. 2016,
    arXiv 1609.07009): the sums are the same, and as a convolution it has an int8 kernel on every
    runtime. `nodes` are those that `becomes_convolution` allows; None takes all of these.
    """
    found = [node for node in convolutions(graph) if becomes_convolution(graph, node)]
    chosen = [node for node in found if nodes is None or node in nodes]
    for node in chosen:
        _as_convolution(graph, node)
    if chosen:
        clean(graph)
    return len(chosen)


def becomes_convolution(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it is a transposed 2D convolution that a convolution does in at most twice the work."""
    if node.target is not aten.conv_transpose2d.input or not _owns_weight(node):
        return False
    height, width = weight_of(graph, node).shape[2:]
    stride, padding, extra, dilation = _steps(node)
    if height != width or len({*stride}) > 1 or len({*padding}) > 1 or len({*extra}) > 1 or {*dilation} != {1}:
        return False
    full = -(-height // stride[0]) * stride[0]
    return height + extra[0] - padding[0] <= full and full**2 <= 2 * height**2


def _as_convolution(graph: fx.GraphModule, node: fx.Node) -> None:
    weight, bias, groups = weight_of(graph, node), bias_of(graph, node), groups_of(node)
    (step, *_), (padding, *_), (extra, *_), _ = _steps(node)
    inside, outside, kernel, _ = weight.shape
    taps = -(-kernel // step)
    missing = taps * step - kernel
    # (group, in, out, taps, offset, taps, offset); a convolution reads its taps in the other order.
    split = F.pad(weight, (0, missing, 0, missing)).reshape(groups, inside // groups, outside, taps, step, taps, step)
    # Pixel shuffle reads channel c * step * step + i * step + j for row offset i and column offset j.
    flipped = split.flip(3, 5).permute(0, 2, 4, 6, 1, 3, 5)
    set_constant(graph, node, 1, flipped.reshape(groups * outside * step**2, inside // groups, taps, taps))
    if bias is not None:
        set_constant(graph, node, 2, bias.repeat_interleave(step**2))
    if (grid := node.meta.get("grid")) is not None:
        node.meta["grid"] = replace(grid, scale_O=grid.scale_O.repeat(groups).repeat_interleave(step**2))
    node.target = aten.conv2d.default
    rest = ([1, 1], [taps - 1] * 2, [1, 1], groups)
    node.args = (*node.args[:2], node.args[2] if bias is not None else None, *rest)
    # Behind the activation, which it would keep a runtime from fusing; the two commute.
    end = fused_end(node)
    readers = list(end.users)
    steps: list[tuple[Any, tuple[Any, ...]]] = [(aten.pixel_shuffle.default, (step,))] if step > 1 else []
    after = taps * step + padding - kernel - extra
    if padding or after:
        steps += [(aten.slice.Tensor, (axis, padding, -after or _END)) for axis in (2, 3)]
    last = end
    for target, args in steps:
        with graph.graph.inserting_after(last):
            last = graph.graph.call_function(target, (last, *args))
        last.meta = {**end.meta}
    for reader in readers:
        reader.replace_input_with(end, last)


def _steps(node: fx.Node) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, padding, output padding and dilation of a transposed convolution, a number for each axis."""
    defaults = [None, [1], [0], [0], 1, [1]]
    # (input, weight, bias, stride, padding, output_padding, groups, dilation), defaults left out
    given: list[Any] = [*node.args[2:], *defaults[len(node.args) - 2 :]]
    return given[1], given[2], given[3], given[5]


def padding_of(conv: fx.Node) -> list[int]:
    """Zeros at each end of every axis of a convolution's image; none where it is told by a word."""
    given = conv.args[4] if conv.target in CONVS and len(conv.args) > 4 else []
    return [] if isinstance(given, str) else list(given)  # type: ignore[arg-type]


def groups_of(conv: fx.Node) -> int:
    """How many groups a convolution's channels lie in; a linear layer has one."""
    place = 6  # in both signatures: (x, w, b, stride, padding, dilation, groups) and (..., output_padding, groups, ...)
    groups = conv.args[place] if len(conv.args) > place else 1
    assert isinstance(groups, int)
    return groups


def _source(node: fx.Node, place: int) -> fx.Node:
    source = node.args[place]
    assert isinstance(source, fx.Node)
    return source


def constant(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """The tensor that a get_attr node reads."""
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value.detach()


def set_constant(graph: fx.GraphModule, conv: fx.Node, place: int, value: Tensor) -> None:
    """Give a convolution a new weight (place 1) or bias (place 2); one that others read too stays theirs."""
    existing = conv.args[place] if len(conv.args) > place else None
    if isinstance(existing, fx.Node) and len(existing.users) == 1:
        path, _, leaf = str(existing.target).rpartition(".")
        owner = graph.get_submodule(path)
        delattr(owner, leaf)
        owner.register_parameter(leaf, _parameter(value))
        return
    path, _, leaf = str(_source(conv, 1).target).rpartition(".")
    name = _LEAVES[place] if leaf.rstrip("_") == "weight" else f"{leaf}_{_LEAVES[place]}"
    _give(graph, conv, place, f"{path}.{name}" if path else name, value)


def _give(graph: fx.GraphModule, conv: fx.Node, place: int, name: str, value: Tensor) -> None:
    # First of all nodes: another call of the module may read it too.
    with graph.graph.inserting_before(next(iter(graph.graph.nodes))):
        node = add_constant(graph, name, _parameter(value))
    conv.args = (*conv.args[:place], *[None] * (place - len(conv.args)), node, *conv.args[place + 1 :])


def add_constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """A node that reads a new parameter or buffer, inserted where the graph stands; taken names get an underscore."""
    path, _, leaf = name.rpartition(".")
    owner = graph
    for part in path.split(".") if path else ():
        if not hasattr(owner, part):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    while hasattr(owner, leaf):
        leaf += "_"
    if isinstance(value, nn.Parameter):
        owner.register_parameter(leaf, value)
    else:
        owner.register_buffer(leaf, value)
    return graph.graph.get_attr(f"{path}.{leaf}" if path else leaf)


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.contiguous(), requires_grad=False)


def clean(graph: fx.GraphModule) -> None:
    """Drop what nothing uses any more, constants included."""
    graph.graph.eliminate_dead_code()
    for node in list(graph.graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*graph.named_parameters(), *graph.named_buffers()) if name not in used]:
        path, _, leaf = name.rpartition(".")
        delattr(graph.get_submodule(path), leaf)
    graph.recompile()
