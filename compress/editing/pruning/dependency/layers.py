"""Rules for the layers that make and mix channels: convolutions, linear layers, products, attention, norms."""

from __future__ import annotations

import re
from math import prod
from typing import Any, Final

from torch import Tensor, fx

from compress.editing.pruning.dependency.labels import NOBODY, nobody
from compress.editing.pruning.dependency.trace import NOT_CHANNELS, Rule, Trace, alone, shape_of
from compress.editing.pruning.dependency.unknown import unknown


def convolution(trace: Trace, node: Any, name: str) -> Tensor:
    """It reads all channels of its group and makes new ones."""
    source, weight, *rest = node.args
    bias = rest[0] if rest else node.kwargs.get("bias")
    transposed = "transpose" in name or (name == "convolution" and bool(node.args[6]))
    groups = _groups(node, name)
    channels = trace.channels(source)
    if weight not in trace.tensors:
        return _computed(trace, node, channels, bias)
    made = _through(trace, weight, channels, groups, transposed)
    trace.joined(bias, 0, made)
    return made.view(1, -1, *(1 for _ in shape_of(node)[2:]))


def _through(trace: Trace, weight: Any, channels: Tensor, groups: int, transposed: bool) -> Tensor:
    """Join what goes into a convolution with its weight; the labels of what comes out."""
    own = 1 if transposed else 0
    if groups == 1:
        trace.joined(weight, 1 - own, channels)
        return trace.made(weight, own)
    if groups == len(channels):
        return _depthwise(trace, weight, channels, groups, transposed)
    into = channels.view(groups, -1)
    if transposed:
        trace.joined(weight, 0, channels)
        made = trace.made(weight, 1).repeat(groups)
    else:
        trace.labels.unite(into, into[:1])
        trace.joined(weight, 1, into[0])
        made = trace.made(weight, 0)
    if trace.ties:
        trace.labels.unite(into, into[:1])
        trace.labels.unite(made.view(groups, -1), made.view(groups, -1)[:1])
    return made


def _depthwise(trace: Trace, weight: Any, channels: Tensor, groups: int, transposed: bool) -> Tensor:
    if transposed:
        trace.joined(weight, 0, channels)
        trace.made(weight, 0)
        return channels.repeat_interleave(shape_of(weight)[1])
    made = trace.made(weight, 0)
    each = made.view(groups, -1)
    if trace.ties:
        trace.labels.unite(each, channels[:, None])
    else:
        trace.labels.unite(each[:, 0], channels)
    trace.labels.keep(each[channels == NOBODY], NOT_CHANNELS)
    return made


def _groups(node: Any, name: str) -> int:
    position = 8 if name == "convolution" else 6
    if len(node.args) > position:
        return int(node.args[position])
    return int(node.kwargs.get("groups", 1))


def _computed(trace: Trace, node: Any, channels: Tensor, bias: Any) -> Tensor:
    """A layer whose weight is no tensor of the network's own (weight norm): it stays as wide as it is."""
    reason = f"{trace.module or 'a layer'} computes its weight from other tensors"
    trace.labels.keep(channels, reason)
    trace.labels.keep(trace.of(node.args[1]), reason)
    if isinstance(bias, fx.Node):
        trace.labels.keep(trace.of(bias), reason)
    axis = -1 if "linear" in str(node.target) else 1
    return trace.kept(node, reason, channels=axis % len(shape_of(node)))


def linear(trace: Trace, node: Any, name: str) -> Tensor:
    """It reads the channels along the last axis and makes new ones."""
    if name == "addmm":
        bias, source, weight, into = node.args[0], node.args[1], node.args[2], 0
    else:
        source, weight, into = node.args[0], node.args[1], int(name == "linear")
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    labels = trace.of(source)
    if weight not in trace.tensors:
        return _computed(trace, node, labels, bias)
    varying = [axis for axis, length in enumerate(labels.shape[:-1]) if length > 1]
    if varying and labels.shape[-1] == 1:
        # Over positions, not over channels: the channels pass through.
        return labels
    if varying:
        trace.labels.keep(labels, f"{trace.module or name} mixes its channels with positions")
    trace.joined(weight, into, trace.channels(source, -1))
    made = trace.made(weight, 1 - into)
    trace.joined(bias, 0, made)
    return made.view(*(1 for _ in labels.shape[:-1]), -1)


def product(trace: Trace, node: Any, name: str) -> Tensor:
    """What is summed over goes together on both sides; rows and columns stay what they are."""
    left, right = node.args[-2:] if name == "baddbmm" else node.args[:2]
    if right in trace.tensors and len(shape_of(right)) == 2 and name != "bmm":
        return linear(trace, node, name)
    a, b = trace.of(left), trace.of(right)
    if a.dim() < 2 or b.dim() < 2:
        return unknown(trace, node, name)
    if a.shape[-2] > 1 and b.shape[-1] > 1:
        trace.labels.keep(a, "channels are multiplied with channels as a matrix")
        trace.labels.keep(b, "channels are multiplied with channels as a matrix")
        return nobody(len(shape_of(node)))
    trace.labels.unite(a[..., :1, :].transpose(-1, -2), b[..., :1])
    rows, columns = a[..., :1] if a.shape[-2] > 1 else None, b[..., :1, :] if b.shape[-1] > 1 else None
    out = rows if rows is not None else columns
    if out is not None:
        return out.view((1,) * (len(shape_of(node)) - out.dim()) + tuple(out.shape))
    return nobody(len(shape_of(node)))


def attention(trace: Trace, node: Any, name: str) -> Any:
    """Channels of queries and keys go together; those of the values come through."""
    query, key, value = (trace.of(source) for source in node.args[:3])
    trace.labels.unite(query[..., :1, :], key[..., :1, :])
    for one in (query, key, value):
        if one.shape[-2] > 1:
            trace.labels.keep(one, "attention is over its channels")
    out = value[..., :1, :]
    return alone(node, out)


def batch_norm(trace: Trace, node: Any, name: str) -> Any:
    """Batch and instance norm: a value of each vector for each channel."""
    channels = trace.channels(node.args[0])
    for vector in node.args[1:5]:
        trace.joined(vector, 0, channels)
    trace.bare[trace.module] = channels
    labels = trace.of(node.args[0])
    return alone(node, labels)


def group_norm(trace: Trace, node: Any, name: str) -> Tensor:
    """As batch norm; and its groups stay of one size."""
    source, groups, *vectors = node.args
    channels = trace.channels(source)
    for vector in vectors[:2]:
        trace.joined(vector, 0, channels)
    trace.bare[trace.module] = channels
    if trace.ties:
        parts = channels.view(int(groups), -1)
        # Whole groups can go, or the same positions of each: whichever leaves more widths to choose from.
        trace.labels.unite(parts, parts[:1] if goes_across(*parts.shape) else parts[:, :1])
    return trace.of(source)


def goes_across(groups: int, size: int) -> bool:
    """Whether a group norm loses the same positions of each of its groups, and not whole groups."""
    return groups == 1 or size > groups


def layer_norm(trace: Trace, node: Any, name: str) -> Any:
    """A value of each vector for each channel, where it is over the axis of channels alone."""
    source, shape, *vectors = node.args
    labels = trace.of(source)
    last = labels.view(labels.shape[-len(shape) :]) if prod(labels.shape[: -len(shape)]) == 1 else None
    for vector in vectors[:2]:
        if isinstance(vector, fx.Node) and last is not None:
            trace.labels.unite(trace.of(vector), last)
        elif isinstance(vector, fx.Node):
            trace.labels.keep(labels, f"{name} is over other axes than that of its channels")
    if last is not None and len(shape) == 1 and last.numel() > 1:
        trace.bare[trace.module] = last
    return alone(node, labels)


def prelu(trace: Trace, node: Any, name: str) -> Tensor:
    """A slope for each channel, or one for all."""
    source, weight = node.args
    if prod(shape_of(weight)) > 1:
        trace.joined(weight, 0, trace.channels(source))
    return trace.of(source)


def embedding(trace: Trace, node: Any, name: str) -> Tensor:
    """Its rows have the channels."""
    weight = node.args[0]
    if weight not in trace.tensors:
        return unknown(trace, node, name)
    return trace.axis(weight, 1).view(*(1 for _ in shape_of(node)[:-1]), -1)


NAMES: Final[dict[str, Rule]] = {
    "convolution": convolution,
    "linear": linear,
    "addmm": linear,
    **dict.fromkeys(("mm", "bmm", "matmul", "baddbmm"), product),
    "batch_norm": batch_norm,
    "native_batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "instance_norm": batch_norm,
    "group_norm": group_norm,
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), layer_norm),
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "embedding": embedding,
}
PATTERNS: Final[tuple[tuple[re.Pattern[str], Rule], ...]] = (
    (re.compile(r"conv(_transpose)?\dd"), convolution),
    (re.compile(r".*scaled_dot_product.*"), attention),
)
