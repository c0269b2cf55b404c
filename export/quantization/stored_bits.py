"""Weights in an ONNX file as bits, unpacked by standard operators: any runtime reads them, and folds them on opening.

A byte is looked up in a table of the signs that it stands for (Gather): every runtime has that operator, while shifts
and bitwise operators are missing in TensorRT. The convolution reads the signs times the size of each output channel;
of an integer weight the size goes into the scale of its DequantizeLinear, which multiplies by it anyway.

Legend: O output channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.quantization.bits import Packed, packed, table

TABLE = {False: "signs_of_bytes", True: "signs_and_zeros_of_bytes"}
"""Of signs as integers; as floats it ends in .float: TensorRT takes 8-bit integers for nothing but DequantizeLinear."""
SUFFIX = {False: ".int1", True: ".int2"}


def store_bits(model: onnx.ModelProto, *, integers: bool = True) -> list[str]:
    """Store every weight of a convolution that fits in bits, in place; returns the names of the weights.

    Args:
        integers: whether integer weights are stored so, too.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    done: dict[str, str] = {}
    new: list[Any] = []
    for node in graph.node:
        place = _weight_place(node, stored) if integers or node.op_type == "Conv" else None
        name = node.input[place] if place is not None else ""
        # The size of an integer weight is in one reader's scale; in float, convolutions that share one share its bits.
        alone = readers[name] == 1 or node.op_type == "Conv"
        found = None if place is None or name in done or not alone else _in_bits(stored[name])
        if place is not None and found is not None:
            new += _unpacked(graph, node, place, found, stored)
            done[name] = node.input[place]
        elif name in done:
            node.input[1] = done[name]
        new.append(node)
    if done:
        left = {name for node in new for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name not in done or tensor.name in left]
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(kept)
        graph.node.extend(new)
    return list(done)


def signs_read(name: str, makers: Mapping[str, Any], stored: Mapping[str, Any]) -> NDArray[np.int8] | None:
    """The signs that a convolution reads, where `store_bits` wrote them and they are times nothing; else None.

    Args:
        name: of the convolution's weight.
        makers: the node that makes a tensor.
        stored: tensors of the file.
    """
    node = makers.get(name)
    if node is None or node.op_type != "Reshape":
        return None
    shape = numpy_helper.to_array(stored[node.input[1]])
    while node is not None and node.op_type in ("Reshape", "Slice"):
        node = makers.get(node.input[0])
    tables = {f"{TABLE[zeros]}.float": zeros for zeros in TABLE}
    if node is None or node.op_type != "Gather" or node.input[0] not in tables:
        return None
    codes = numpy_helper.to_array(stored[makers[node.input[1]].input[0]])
    return table(tables[node.input[0]])[codes].reshape(-1)[: int(np.prod(shape))].reshape(shape)


def _weight_place(node: Any, stored: Mapping[str, Any]) -> int | None:
    """Where a node reads a stored weight with its output channels first; None if it does not.

    Of an integer weight that is its DequantizeLinear, which is the convolution's own.
    """
    if node.op_type == "Conv" and node.input[1] in stored:
        return 1
    of_integers = node.op_type == "DequantizeLinear" and node.input[0] in stored and len(node.input) > 1
    return 0 if of_integers and _axis(node) == 0 and len(stored[node.input[1]].dims) == 1 else None


def _axis(node: Any) -> int:
    return next((given.i for given in node.attribute if given.name == "axis"), 1)


def _in_bits(tensor: TensorProto) -> Packed | None:
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.INT8):
        return None
    return packed(torch.from_numpy(numpy_helper.to_array(tensor).copy()))


def _unpacked(graph: Any, node: Any, place: int, found: Packed, stored: dict[str, Any]) -> list[Any]:
    """The nodes that unpack a weight, which `node` reads instead."""
    old = node.input[place]
    name = old.removesuffix(".int8") + SUFFIX[found.zeros]
    integers = node.op_type == "DequantizeLinear"
    signs = TABLE[found.zeros] + ("" if integers else ".float")
    _store(graph, stored, signs, table(found.zeros) if integers else table(found.zeros).astype(np.float32))
    _store(graph, stored, name, found.codes)
    nodes = [helper.make_node("Cast", [name], [f"{name}_index"], f"{name}_cast", to=TensorProto.INT32)]
    nodes += [helper.make_node("Gather", [signs, f"{name}_index"], [f"{name}_signs"], f"{name}_gather")]
    last = f"{name}_signs"
    count = int(np.prod(found.shape))
    if found.codes.size * table(found.zeros).shape[1] != count:
        for part, value in (("flat", [-1]), ("start", [0]), ("end", [count])):
            _store(graph, stored, f"{name}_{part}", np.array(value, np.int64))
        nodes += [helper.make_node("Reshape", [last, f"{name}_flat"], [f"{name}_row"], f"{name}_flatten")]
        ends = [f"{name}_row", f"{name}_start", f"{name}_end"]
        nodes += [helper.make_node("Slice", ends, [f"{name}_cut"], f"{name}_slice")]
        last = f"{name}_cut"
    _store(graph, stored, f"{name}_shape", np.array(found.shape, np.int64))
    nodes += [helper.make_node("Reshape", [last, f"{name}_shape"], [f"{name}_weight"], f"{name}_reshape")]
    last = f"{name}_weight"
    if integers:
        _scale_by(graph, node, found, name, stored)
    elif not np.all(found.size == 1):
        _store(graph, stored, f"{name}_size", found.size.reshape(-1, *[1] * (len(found.shape) - 1)))
        nodes += [helper.make_node("Mul", [last, f"{name}_size"], [f"{name}_sized"], f"{name}_mul")]
        last = f"{name}_sized"
    node.input[place] = last
    return nodes


def _scale_by(graph: Any, node: Any, found: Packed, name: str, stored: dict[str, Any]) -> None:
    """DequantizeLinear multiplies an integer by the scale: the sign times (size times scale) is the same product."""
    scale_O = numpy_helper.to_array(stored[node.input[1]])
    _store(graph, stored, f"{name}_scale", (found.size * scale_O).astype(np.float32))
    node.input[1] = f"{name}_scale"


def _store(graph: Any, stored: dict[str, Any], name: str, value: NDArray[Any]) -> None:
    if name not in stored:
        stored[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        graph.initializer.append(stored[name])
