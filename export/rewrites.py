"""Operators of an ONNX file written as others that mean the same, for a runtime that computes them otherwise.

What they mean is asked of ONNX Runtime, which files are held to: a node is run on an image whose answer tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.layers import attribute

Answers = Callable[[bytes, Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""Runs a model that is not in a file, without rearranging it."""
Shapes = Mapping[str, Sequence[int]]


def rewritten(model: onnx.ModelProto, answers: Answers) -> onnx.ModelProto:
    """A copy without antialiasing Resize and without AveragePool in ceil mode, where their sizes are known.

    OpenVINO (2026.4) reads antialias=1 and computes without (openvinotoolkit/openvino#35893), and divides by other
    counts where a window hangs over the edge (openvinotoolkit/openvino#36714).
    """
    if not any(_wanted(node) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = _shapes(copy)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        new = _wanted(node) and all(name in shapes for name in (node.input[0], node.output[0]))
        write = _resize if node.op_type == "Resize" else _average
        nodes += write(copy, node, shapes, answers) if new else [node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def in_float32(model: onnx.ModelProto, operator: str) -> tuple[onnx.ModelProto, list[str]]:
    """A copy in which this operator computes in float32 what it has in bfloat16, between casts; and those nodes' names.

    bfloat16 is rounded float32: what is cast there and back is what it was.
    """
    named = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    named |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found = [
        node.name
        for node in model.graph.node
        if node.op_type == operator and named.get(node.input[1]) == TensorProto.BFLOAT16
    ]
    if not found:
        return model, []
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [between for node in copy.graph.node for between in _between_casts(node, node.name in found)]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy, found


def _between_casts(node: onnx.NodeProto, wanted: bool) -> list[onnx.NodeProto]:
    if not wanted:
        return [node]
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    wide.output[0] = f"{node.output[0]}_in_float32"
    casts = []
    # An optional input that is left out has no name.
    for index, name in ((index, name) for index, name in enumerate(node.input) if name):
        wide.input[index] = f"{node.name}_{name}_in_float32"
        casts.append(
            helper.make_node("Cast", [name], [wide.input[index]], name=wide.input[index], to=TensorProto.FLOAT)
        )
    back = helper.make_node("Cast", [wide.output[0]], [node.output[0]], name=wide.output[0], to=TensorProto.BFLOAT16)
    return [*casts, wide, back]


def _wanted(node: onnx.NodeProto) -> bool:
    if node.op_type == "Resize":
        return bool(attribute(node, "antialias", 0))
    return node.op_type == "AveragePool" and bool(attribute(node, "ceil_mode", 0))


def _shapes(model: onnx.ModelProto) -> Shapes:
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sides = value.type.tensor_type.shape.dim
        if sides and all(side.HasField("dim_value") for side in sides[1:]):
            found[value.name] = [side.dim_value for side in sides]
    return found


def _resize(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes, answers: Answers) -> list[onnx.NodeProto]:
    """Two products with matrices: what a Resize does along an axis is linear, and each axis apart."""
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    if len(before) != 4 or before[1] != after[1]:
        return [node]
    rows, columns = (
        _matrix(model, node, length, wanted, answers) for length, wanted in zip(before[2:], after[2:], strict=True)
    )
    left, right, half = (f"{node.output[0]}_{part}" for part in ("rows", "columns", "half"))
    model.graph.initializer.extend(
        [numpy_helper.from_array(rows, left), numpy_helper.from_array(np.ascontiguousarray(columns.T), right)]
    )
    return [
        helper.make_node("MatMul", [left, node.input[0]], [half], name=f"{node.name}_rows"),
        helper.make_node("MatMul", [half, right], [node.output[0]], name=node.name),
    ]


def _matrix(
    model: onnx.ModelProto, node: onnx.NodeProto, length: int, wanted: int, answers: Answers
) -> NDArray[np.float32]:
    """What the node does along one axis: the unit vectors, resized."""
    alone = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"])
    alone.attribute.extend(given for given in node.attribute if given.name not in ("axes", "keep_aspect_ratio_policy"))
    sizes = numpy_helper.from_array(np.array([1, 1, wanted, length], np.int64), "sizes")
    units = np.eye(length, dtype=np.float32)[None, None]
    return _answer(model, alone, units, [sizes], answers)[0, 0]


def _average(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes, answers: Answers) -> list[onnx.NodeProto]:
    """Padded by zeros as far as windows reach, averaged over whole windows, and divided by the right counts."""
    before, after = shapes[node.input[0]][2:], shapes[node.output[0]][2:]
    if attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return [node]
    ones = [1] * len(before)
    kernel, steps = attribute(node, "kernel_shape", ones), attribute(node, "strides", ones)
    spread, pads = attribute(node, "dilations", ones), attribute(node, "pads", 2 * [0] * len(before))
    begin = list(pads[: len(before)])
    reach = [
        (out - 1) * step + (side - 1) * wide + 1
        for out, step, side, wide in zip(after, steps, kernel, spread, strict=True)
    ]
    # A last window may end before the image does.
    end = [max(far - side - start, 0) for far, side, start in zip(reach, before, begin, strict=True)]
    padded, average, by, around = (f"{node.output[0]}_{part}" for part in ("padded", "average", "counts", "pads"))
    whole = helper.make_node("AveragePool", [padded], [average], name=f"{node.name}_whole")
    whole.attribute.extend(given for given in node.attribute if given.name in ("kernel_shape", "strides", "dilations"))
    pad = helper.make_node("Pad", [node.input[0], around], [padded], name=f"{node.name}_pad")
    amounts = numpy_helper.from_array(np.array([0, 0, *begin, 0, 0, *end], np.int64), around)
    counts = _counts(model, node, before, (whole, begin, end), answers)
    model.graph.initializer.extend([amounts, numpy_helper.from_array(counts, by)])
    return [pad, whole, helper.make_node("Mul", [average, by], [node.output[0]], name=node.name)]


def _counts(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    sides: Sequence[int],
    whole: tuple[onnx.NodeProto, list[int], list[int]],
    answers: Answers,
) -> NDArray[np.float32]:
    """How many times more the node gives of an image of ones than whole windows do, at each place."""
    ones = np.ones((1, 1, *sides), np.float32)
    pooled, begin, end = whole
    around = [(0, 0), (0, 0), *zip(begin, end, strict=True)]
    right = _answer(model, _renamed(node), ones, [], answers)
    return right / _answer(model, _renamed(pooled), np.pad(ones, around), [], answers)


def _renamed(node: onnx.NodeProto) -> onnx.NodeProto:
    alone = helper.make_node(node.op_type, ["x"], ["y"])
    alone.attribute.extend(node.attribute)
    return alone


def _answer(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    image: NDArray[np.float32],
    stored: Sequence[TensorProto],
    answers: Answers,
) -> NDArray[np.float32]:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * image.ndim)
    graph = helper.make_graph([node], "one", [x], [y], list(stored))
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return np.asarray(answers(alone.SerializeToString(), {"x": image})["y"], np.float32)
