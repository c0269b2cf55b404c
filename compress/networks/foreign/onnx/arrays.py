"""ONNX's operators on arrays: shapes, computed in Python, so that what torch exports has no trace of them.

Sizes may be left open; an array then holds torch's symbols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from compress.networks.foreign.onnx.node import Node, Operator, Value, whole
from compress.networks.foreign.onnx.reference import computed
from compress.networks.foreign.onnx.shapes import slices


def on_arrays(node: Node, values: Sequence[Value]) -> tuple[Value, ...]:
    """The outputs of a node whose inputs are all arrays."""
    open_ended = any(value is not None and value.dtype == object for value in values)
    if not open_ended:
        if node.kind in _ALIKE:
            return (np.asarray(_ON_SYMBOLS[node.kind](node, *values)),)
        return tuple(computed(node.proto, node.opset, values))
    if node.kind not in _ON_SYMBOLS:
        raise ValueError("this size cannot be left open (dynamic)")
    return (np.asarray(_ON_SYMBOLS[node.kind](node, *values), dtype=object),)


def _squeeze_array(node: Node, x: Value, axes: Value = None) -> Value:
    axes = node.get("axes", None) if axes is None else tuple(whole(axes))
    return np.squeeze(x, None if axes is None else tuple(axes))


def _unsqueeze_array(node: Node, x: Value, axes: Value = None) -> Value:
    return np.expand_dims(x, tuple(node.get("axes", None) if axes is None else whole(axes)))


def _slice_array(node: Node, x: Value, *given: Value) -> Value:
    starts, ends, axes, steps = slices(node, x.ndim, given)
    index: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, None if step < 0 and end < -(2**30) else end, step)
    return x[tuple(index)]


def _reshape_array(node: Node, x: Value, shape: Value) -> Value:
    wanted = whole(shape)
    return x.reshape([x.shape[axis] if side == 0 and x.size else side for axis, side in enumerate(wanted)])


def _divided(node: Node, a: Value, b: Value) -> Value:
    inexact = any(isinstance(each, float | torch.SymFloat) for each in (*a.flat, *b.flat))
    return a / b if inexact else a // b


def _floored(node: Node, x: Value) -> Value:
    return np.array([math.floor(each) for each in x.flat], dtype=object).reshape(x.shape)


_ON_SYMBOLS: dict[str, Operator] = {
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
    "Mul": lambda node, a, b: a * b,
    "Div": _divided,
    "Floor": _floored,
    "Identity": lambda node, x: x,
    "Cast": lambda node, x: _floored(node, x) if node.get("to", 0) in (6, 7) else x,
    "Concat": lambda node, *xs: np.concatenate(xs, axis=node.get("axis", 0)),
    "Gather": lambda node, x, indices: np.take(x, indices, axis=node.get("axis", 0)),
    "Slice": _slice_array,
    "Squeeze": _squeeze_array,
    "Unsqueeze": _unsqueeze_array,
    "Reshape": _reshape_array,
}

# Of ordinary numbers too: quicker, and ONNX's reference has its own mind about some of them.
_ALIKE = ("Add", "Sub", "Mul", "Identity", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape")
