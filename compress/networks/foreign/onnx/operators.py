"""ONNX's operators, in torch: what they compute, for any opset that is read.

A value is a tensor, or, where it is about shapes, a numpy array (arrays.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from compress.networks.foreign.onnx import elementwise, pooling, reductions, resize, shapes
from compress.networks.foreign.onnx.arrays import on_arrays
from compress.networks.foreign.onnx.node import Node, Operator, Value

OPERATORS: Mapping[str, Operator] = {
    **elementwise.OPERATORS,
    **shapes.OPERATORS,
    **resize.OPERATORS,
    **pooling.OPERATORS,
    **reductions.OPERATORS,
}


def applied(node: Node, values: Sequence[Value]) -> tuple[Value, ...]:
    """A node's outputs."""
    if node.kind != "Shape" and all(value is None or isinstance(value, np.ndarray) for value in values):
        return on_arrays(node, values)
    if node.kind not in OPERATORS:
        raise ValueError("is known of shapes alone, and here it depends on the values of the image")
    answer = OPERATORS[node.kind](node, *values)
    return answer if isinstance(answer, tuple) else (answer,)


def following(node: Node, values: list[Value], written: int, given: Any) -> list[Value]:
    """The same values where a target shape in the file begins with its one batch, and another batch is given.

    Whether that is what the file means is found by trying (compress/networks/onnx.py).
    """
    index = {"Reshape": 1, "Expand": 1, "Resize": 3}.get(node.kind)
    if index is None or len(values) <= index or not isinstance(values[0], Tensor) or values[0].shape[0] != given:
        return values
    shape = values[index]
    axes = node.get("axes", None)
    whole_shape = node.kind != "Resize" or axes is None or axes[0] == 0
    if not isinstance(shape, np.ndarray) or not shape.size or shape.flat[0] != written or not whole_shape:
        return values
    wanted = shape.astype(object)
    wanted[0] = given
    return [*values[:index], wanted, *values[index + 1 :]]
