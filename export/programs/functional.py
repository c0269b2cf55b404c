"""What torch.export captured, written in the operations that have a translation to ONNX, without tracing it again.

Torch's exporter takes a program apart by running it a second time, which is more than half of an export's time. Most
networks need little of that: an activation in place written as a function, a batch norm and a transposed convolution
under the names that the translations go by.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

aten = torch.ops.aten
_NORMED = aten._native_batch_norm_legit_no_training.default
_DROPOUTS = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
_OWN = frozenset(
    (
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"),
        *("batch_norm", "instance_norm", "group_norm", "layer_norm", "max_pool2d", "max_pool3d"),
    )
)
"""Composite operations whose result is a tensor of its own; of others torch does not say."""


def in_functions(program: ExportedProgram) -> bool:
    """Write the program's graph in functional operations, as `run_decompositions({})` does, several times faster.

    Returns:
        Whether all of it could be written so. If not, the graph is only partly rewritten, and means what it did.
    """
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    # As much as can be, in any case: torch itself takes a dropout's answer for another tensor than what it was given.
    # Whoever runs a program compiles its graph: it is not done here.
    written = [_in_functions(node) for node in calls]
    return all(written)


def _in_functions(node: fx.Node) -> bool:
    if node.target in _DROPOUTS:
        return _dropped(node)
    if changes_in_place(node):
        return _out_of_place(node)
    if node.target is aten.batch_norm.default:
        return _batch_norm(node)
    # A view is written otherwise, and where a slice takes all of an axis, tracing numbers it and leaves it out.
    return node.target is not aten.slice.Tensor and not (_is_composite(node) and _shares(node))


def as_translated(program: ExportedProgram) -> None:
    """Write functional operations that ONNX's translations know by another name under that one."""
    for node in program.graph.nodes:
        if node.target in _TRANSPOSED:
            _convolution(node, _TRANSPOSED[node.target])
        elif node.target is aten.adaptive_avg_pool2d.default and set(node.args[1]) == {1}:
            node.target, node.args = aten.mean.dim, (node.args[0], [-1, -2], True)


def named_as_traced(graph: fx.Graph) -> fx.Graph:
    """The same graph under the names that tracing it gives: a saved network knows its ranges by them."""
    copied = fx.Graph()
    known: dict[Any, Any] = {}
    parts: dict[Any, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target is operator.getitem and node.args[0] in parts:
            known[node] = parts[node.args[0]][node.args[1]]
            known[node].meta = node.meta
            continue
        packet = getattr(node.target, "overloadpacket", None)
        copy = copied.node_copy(node, known.__getitem__) if packet is None else _renamed(copied, node, known, packet)
        known[node] = copy
        value = node.meta.get("val")
        if packet is not None and isinstance(value, tuple | list):
            parts[node] = [copied.call_function(operator.getitem, (copy, index)) for index in range(len(value))]
    for part in (each for several in parts.values() for each in several if not each.users):
        copied.erase_node(part)
    return copied


def _renamed(copied: fx.Graph, node: fx.Node, known: dict[Any, Any], packet: Any) -> fx.Node:
    args: Any = fx.map_arg(node.args, known.__getitem__)
    kwargs: Any = fx.map_arg(node.kwargs, known.__getitem__)
    copy = copied.create_node(node.op, node.target, args, kwargs, packet.__name__, node.type)
    copy.meta = dict(node.meta)
    return copy


def changes_in_place(node: fx.Node) -> bool:
    """Whether an operation changes a tensor that it is given."""
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _is_composite(node: fx.Node) -> bool:
    """Whether an operation is made of others."""
    name = getattr(node.target, "name", None)
    return name is not None and torch._C._dispatch_has_kernel_for_dispatch_key(name(), "CompositeImplicitAutograd")


def _shares(node: fx.Node) -> bool:
    """Whether an operation says that its result shares memory with what it reads."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(given.alias_info is not None for given in schema.returns)


def _dropped(node: fx.Node) -> bool:
    source, _, training = node.args
    if training or any(user.op == "output" for user in node.users):
        return False
    node.replace_all_uses_with(source)  # type: ignore[arg-type]
    node.graph.erase_node(node)
    return True


def _out_of_place(node: fx.Node) -> bool:
    """`relu_(x)` as `relu(x)`, read by all that read `x` afterwards; False if another tensor may share its memory."""
    changed = node.args[0]
    twin = _twin(node.target)
    if twin is None or not isinstance(changed, fx.Node):
        return False
    others = [user for user in changed.users if user is not node]
    if not all(map(_is_new, (changed, *others))):
        return False
    node.target = twin
    order = {each: number for number, each in enumerate(node.graph.nodes)}
    for user in others:
        if order[user] > order[node]:
            user.replace_input_with(changed, node)
    return True


def _twin(target: Any) -> Callable[..., Any] | None:
    """The operation that gives a new tensor where this one changes its first argument."""
    name = target._schema.name.partition("::")[2]
    if target.namespace != "aten" or not name.endswith("_"):
        return None
    packet = getattr(aten, name[:-1], None)
    return getattr(packet, target._overloadname, None)


def _is_new(node: fx.Node) -> bool:
    """Whether what a node gives shares memory with nothing else."""
    target: Any = node.target
    if target is operator.getitem:
        # Of several results only a batch norm's, whose first is its own.
        return bool(node.args[0].target is _NORMED)  # type: ignore[union-attr]
    if node.op != "call_function" or not hasattr(target, "_schema"):
        return node.op == "output"
    if _is_composite(node):
        return target._schema.name.partition("::")[2] in _OWN
    return changes_in_place(node) or not _shares(node)


def _batch_norm(node: fx.Node) -> bool:
    source, weight, bias, mean, variance, training, momentum, eps, *_ = node.args
    if training or mean is None:
        return False
    with node.graph.inserting_before(node):
        normed = node.graph.call_function(_NORMED, (source, weight, bias, mean, variance, momentum, eps))
    value = node.meta["val"]
    normed.meta = {**node.meta, "val": (value, value.new_empty(0), value.new_empty(0))}
    # The node itself stays, because the program knows its answer by name.
    node.target, node.args = operator.getitem, (normed, 0)
    return True


_TRANSPOSED = {aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2, aten.conv_transpose3d.input: 3}
"""Transposed convolutions, and their axes."""


def _convolution(node: fx.Node, axes: int) -> None:
    arguments = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given: dict[str, Any] = {**dict(zip(arguments, node.args, strict=False)), **node.kwargs}
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    sides = [list(given.get(name, [default])) for name, default in defaults.items()]
    stride, padding, dilation, outer = (each * axes if len(each) == 1 else each for each in sides)
    weights = given["input"], given["weight"], given.get("bias")
    node.target, node.kwargs = aten.convolution.default, {}
    node.args = (*weights, stride, padding, dilation, True, outer, given.get("groups", 1))
