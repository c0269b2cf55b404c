"""A network as a graph of its own operations: captured, folded, and rewritten for integer runtimes.

What torch.export captures is also what the ONNX exporter sees, so anything that can be exported
can be captured, however its Python is written.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from export.errors import ExportError

aten = torch.ops.aten
Dynamic = Literal["batch", "size"]

CONVS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
LINEAR = (aten.linear.default,)
_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What torch.export raises over a network it cannot capture: it has no common class for it."""
_BATCH_NORM = aten._native_batch_norm_legit_no_training.default


def capture(net: nn.Module, example: Tensor, dynamic: Sequence[Dynamic] = ()) -> fx.GraphModule:
    """The network as a graph of functional ATen operations, in evaluation mode.

    Args:
        net: takes one float tensor BC.. and returns one; it is not changed.
        example: an input of the right shape.
        dynamic: which axes of the input may change afterwards.

    Raises:
        ExportError: with torch's reason, if the network's Python cannot be captured.
    """
    try:
        with warnings.catch_warnings():
            # torch.export warns about its own deprecated internals.
            warnings.simplefilter("ignore")
            program = torch.export.export(
                net.eval(), (example,), dynamic_shapes=_shapes(example, dynamic), strict=False
            )
            module = program.run_decompositions({}).module(check_guards=False)
    except _REFUSALS as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"{type(net).__name__} cannot be captured by torch.export: {reason[:300]}") from error
    return _plain(module, type(net).__name__)


def _plain(module: Any, name: str) -> fx.GraphModule:
    """The captured graph as an ordinary module: one tensor in, one out, and eval() allowed."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    if len(output.args[0]) != 1:
        raise ExportError(
            f"{name} returns {len(output.args[0])} tensors; a network for export returns its logits alone"
        )
    output.args = (output.args[0][0],)
    module.graph.set_codegen(fx.graph.CodeGen())
    return fx.GraphModule(module, module.graph)


def _shapes(example: Tensor, dynamic: Sequence[Dynamic]) -> tuple[dict[int, Any]] | None:
    axes: dict[int, Any] = {}
    if "batch" in dynamic:
        axes[0] = Dim.DYNAMIC
    if "size" in dynamic:
        axes |= dict.fromkeys(range(2, example.dim()), Dim.DYNAMIC)
    return (axes,) if axes else None


def convolutions(graph: fx.GraphModule) -> Iterator[fx.Node]:
    """Every convolution, transposed convolution and linear layer whose weight is a parameter, in order."""
    for node in graph.graph.nodes:
        known = node.op == "call_function" and node.target in (*CONVS, *TRANSPOSED, *LINEAR)
        if known and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr":
            yield node


def layer_name(node: fx.Node) -> str:
    """The module path that a user knows a convolution by, such as `encoder.0.3` or `head`."""
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return str(weight.target).removesuffix(".weight")


def weight_of(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """The weight tensor of a convolution."""
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return graph.get_parameter(str(weight.target)).detach()


def fold_batch_norm(graph: fx.GraphModule) -> int:
    """Fold each BatchNorm into the convolution before it, in place; returns how many were folded.

    One stays where its convolution's output or weight is used elsewhere too.
    """
    folded = 0
    for norm in list(graph.graph.nodes):
        if norm.target is not _BATCH_NORM:
            continue
        conv = norm.args[0]
        if conv.target not in (*CONVS, *TRANSPOSED) or len(conv.users) > 1 or len(conv.args[1].users) > 1:
            continue
        outputs = [user for user in norm.users if user.target is operator.getitem and user.args[1] == 0]
        gamma, beta, mean, variance = (None if a is None else _constant(graph, a) for a in norm.args[1:5])
        assert mean is not None and variance is not None
        scale = torch.rsqrt(variance.double() + norm.args[6]) * (1.0 if gamma is None else gamma.double())
        weight = _constant(graph, conv.args[1]).double()
        axis = 1 if conv.target in TRANSPOSED else 0
        groups = _groups(conv)
        bias = torch.zeros_like(scale) if len(conv.args) < 3 or conv.args[2] is None else _constant(graph, conv.args[2])
        shift = (bias.double() - mean.double()) * scale + (0.0 if beta is None else beta.double())
        shape = [1] * weight.dim()
        shape[axis] = -1
        if axis == 1 and groups > 1:
            # A grouped transposed weight is (in, out / groups, ...): its outputs lie group by group.
            per_group = scale.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
            weight = weight * per_group.reshape(weight.shape[0], -1, *shape[2:])
        else:
            weight = weight * scale.reshape(shape)
        set_constant(graph, conv, 1, weight.float())
        set_constant(graph, conv, 2, shift.float())
        for output in outputs:
            output.replace_all_uses_with(conv)
        folded += 1
    clean(graph)
    return folded


def transposed_as_convolution(graph: fx.GraphModule) -> int:
    """Write each non-overlapping transposed convolution as a 1x1 convolution and a pixel shuffle, in place.

    With kernel = stride, no padding and one group the two are equal to the last bit of the sum; as
    a convolution it has an int8 kernel on every runtime. Returns how many were rewritten.
    """
    rewritten = 0
    for node in list(convolutions(graph)):
        if node.target is not aten.conv_transpose2d.input or not _non_overlapping(graph, node):
            continue
        weight = weight_of(graph, node)  # (in, out, k, k)
        inside, outside, step, _ = weight.shape
        if len(node.args[1].users) > 1:  # type: ignore[union-attr]
            continue
        # Pixel shuffle reads channel c * k * k + i * k + j for row offset i and column offset j.
        set_constant(graph, node, 1, weight.permute(1, 2, 3, 0).reshape(outside * step * step, inside, 1, 1))
        if len(node.args) > 2 and node.args[2] is not None:
            bias = _constant(graph, node.args[2])
            set_constant(graph, node, 2, bias.repeat_interleave(step * step))
        node.target = aten.conv2d.default
        node.args = (*node.args[:3],) if len(node.args) > 2 else (*node.args[:2],)
        with graph.graph.inserting_after(node):
            shuffle = graph.graph.call_function(aten.pixel_shuffle.default, (node, step))
        node.replace_all_uses_with(shuffle, delete_user_cb=_other_than(shuffle))
        rewritten += 1
    clean(graph)
    return rewritten


def _other_than(node: fx.Node) -> Callable[[fx.Node], bool]:
    return lambda user: user is not node


def _non_overlapping(graph: fx.GraphModule, node: fx.Node) -> bool:
    kernel = tuple(weight_of(graph, node).shape[2:])
    # (input, weight, bias, stride, padding, output_padding, groups, dilation), defaults left out
    defaults: list[Any] = [[1], [0], [0], 1, [1]]
    given = [*node.args[3:], *defaults[len(node.args) - 3 :]] if len(node.args) >= 3 else defaults
    stride, padding, extra, groups, dilation = given
    return (
        kernel[0] == kernel[1]
        and all(step == kernel[0] for step in stride)
        and not any(padding)
        and not any(extra)
        and groups == 1
        and all(rate == 1 for rate in dilation)
    )


def _groups(conv: fx.Node) -> int:
    place = 6  # in both signatures: (x, w, b, stride, padding, dilation, groups) and (..., output_padding, groups, ...)
    groups = conv.args[place] if len(conv.args) > place else 1
    assert isinstance(groups, int)
    return groups


def _constant(graph: fx.GraphModule, node: Any) -> Tensor:
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value.detach()


def set_constant(graph: fx.GraphModule, conv: fx.Node, place: int, value: Tensor) -> None:
    """Give a convolution a new weight (place 1) or bias (place 2), under its own layer's name."""
    target = f"{layer_name(conv)}.{('input', 'weight', 'bias')[place]}"
    *path, leaf = target.split(".")
    owner: Any = graph
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, leaf, nn.Parameter(value.contiguous(), requires_grad=False))
    existing = conv.args[place] if len(conv.args) > place else None
    if isinstance(existing, fx.Node) and existing.target == target:
        return
    with graph.graph.inserting_before(conv):
        node = graph.graph.get_attr(target)
    args = [*conv.args, *[None] * (place + 1 - len(conv.args))]
    args[place] = node
    conv.args = tuple(args)


def clean(graph: fx.GraphModule) -> None:
    """Drop what nothing uses any more, constants included."""
    graph.graph.eliminate_dead_code()
    for node in list(graph.graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*graph.named_parameters(), *graph.named_buffers()) if name not in used]:
        *path, leaf = name.split(".")
        owner: Any = graph
        for part in path:
            owner = getattr(owner, part)
        delattr(owner, leaf)
    graph.recompile()
