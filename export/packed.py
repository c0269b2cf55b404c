"""Integer weights of few bits, stored in as many: two or four in a byte, expanded again by standard operators.

ONNX Runtime 1.32 folds what is computed from stored tensors alone when it opens a file: it runs the same int8 kernels,
and only the file is smaller. OpenVINO 2026.4 folds the Cast of a 4-bit type, but from an IR no arithmetic on bytes: it
repeats that in every inference, with the convolution in float (seen in its compiled graph). ONNX's own 4-bit type needs
opset 21; read by a DequantizeLinear it makes ONNX Runtime compute in float, so that a Cast to int8 stands between. Its
2-bit type (opset 25) opens in ONNX Runtime with such a Cast alone, and in OpenVINO not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INT4_SINCE = 21
"""The opset from which there are tensors of 4 bits."""
_WHOLE = "int8"
_PACKED = {4: "int4", 2: "int2"}
_UNPACK = "unpack/"
"""How the names of nodes and constants begin that expand a weight."""
Codes = NDArray[np.int8]


def pack(model: onnx.ModelProto, *, as_bytes: bool) -> int:
    """Store every int8 weight whose codes fit in 4 or 2 bits in as many, in place; returns how many.

    What fits is seen from the codes: one of 8 bits has some near the ends.

    Args:
        as_bytes: whether bytes may hold them; otherwise 2 bits are stored in 4.
    """
    graph = model.graph
    opset = max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    read = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    kept: list[TensorProto] = []
    for tensor in graph.initializer:
        weight = tensor.name in read and tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
        codes = numpy_helper.to_array(tensor) if weight else None
        bits = None if codes is None else _bits(codes)
        if bits == 2 and not as_bytes:
            bits = 4
        if codes is None or bits is None:
            kept.append(tensor)
            continue
        own_type = bits == 4 and opset >= INT4_SINCE
        made, stored = _as_int4(tensor.name, codes) if own_type else _bytes(tensor.name, codes, bits)
        nodes += made
        kept += stored
    if nodes:
        later = list(graph.node)
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(kept)
        graph.node.extend([*nodes, *later])
    return sum(node.output[0] in read for node in nodes)


def _bits(codes: Codes) -> int | None:
    """The fewest bits that hold them, zero in the middle; None where 8 are needed."""
    largest = int(np.abs(codes.astype(np.int16)).max(initial=0))
    return 2 if largest <= 1 else 4 if largest <= 7 else None


def _name(weight: str, bits: int) -> str:
    return f"{weight.removesuffix(_WHOLE)}{_PACKED[bits]}"


def _as_int4(weight: str, codes: Codes) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Stored as ONNX's own type, low half of a byte first."""
    flat = np.append(codes.reshape(-1), np.zeros(codes.size % 2, np.int8)).astype(np.uint8) & 15
    stored = TensorProto(name=_name(weight, 4), data_type=TensorProto.INT4, dims=codes.shape)
    stored.raw_data = (flat[0::2] | (flat[1::2] << 4)).tobytes()
    return [helper.make_node("Cast", [stored.name], [weight], f"{_UNPACK}{weight}", to=TensorProto.INT8)], [stored]


def _bytes(weight: str, codes: Codes, bits: int) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Stored as bytes, of which each part holds a stretch of the codes; every operator is in opset 18."""
    parts, middle = 8 // bits, 2 ** (bits - 1)
    flat = (codes.reshape(-1).astype(np.int16) + middle).astype(np.uint8)
    each = -(-flat.size // parts)
    rows = np.append(flat, np.zeros(each * parts - flat.size, np.uint8)).reshape(parts, each)
    whole = np.bitwise_or.reduce([row << np.uint8(bits * place) for place, row in enumerate(rows)])
    stem = f"{_UNPACK}{weight}"
    constants = {
        "mask": np.uint8(2**bits - 1),
        "middle": np.int32(middle),
        "shape": np.array(codes.shape, np.int64),
        "from": np.zeros(1, np.int64),
        "to": np.array([flat.size], np.int64),
        **{f"shift{place}": np.uint8(bits * place) for place in range(1, parts)},
    }
    packed = _name(weight, bits)
    nodes = []

    def add(kind: str, inputs: list[str], output: str, **options: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], f"{output}/node", **options))
        return output

    taken = [packed, *(f"{stem}/part{place}" for place in range(1, parts))]
    for place in range(1, parts):
        add("BitShift", [packed, f"{stem}/shift{place}"], taken[place], direction="RIGHT")
    masked = [add("BitwiseAnd", [name, f"{stem}/mask"], f"{stem}/code{place}") for place, name in enumerate(taken)]
    joined = add("Concat", masked, f"{stem}/codes", axis=0)
    whole_length = add("Slice", [joined, f"{stem}/from", f"{stem}/to"], f"{stem}/cut")
    wide = add("Cast", [whole_length], f"{stem}/wide", to=TensorProto.INT32)
    signed = add("Sub", [wide, f"{stem}/middle"], f"{stem}/signed")
    narrow = add("Cast", [signed], f"{stem}/narrow", to=TensorProto.INT8)
    nodes.append(helper.make_node("Reshape", [narrow, f"{stem}/shape"], [weight], stem))
    stored = [numpy_helper.from_array(np.asarray(value), f"{stem}/{name}") for name, value in constants.items()]
    return nodes, [numpy_helper.from_array(whole, packed), *stored]


def unpacked(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its weights of few bits as int8 again; itself where it has none."""
    found = dict(_packed_weights(model))
    if not found:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(node for node in model.graph.node if not node.name.startswith(_UNPACK))
    gone = {_name(weight, bits) for weight in found for bits in _PACKED}
    copy.graph.initializer.extend(
        tensor for tensor in model.graph.initializer if tensor.name not in gone and not tensor.name.startswith(_UNPACK)
    )
    for weight, codes in found.items():
        tensor = numpy_helper.from_array(codes, weight)
        tensor.doc_string = str(_bits(codes))
        copy.graph.initializer.append(tensor)
    return copy


def bits_of(tensor: TensorProto) -> int:
    """Of each value as the file stores it, also of what `unpacked` gave."""
    return int(tensor.doc_string) if tensor.doc_string.isdigit() else 8 * numpy_helper.to_array(tensor).itemsize


def _packed_weights(model: onnx.ModelProto) -> Iterator[tuple[str, Codes]]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weight = node.output[0]
        if node.name == f"{_UNPACK}{weight}":
            if node.op_type == "Cast":
                yield weight, numpy_helper.to_array(stored[node.input[0]]).astype(np.int8)
            elif node.op_type == "Reshape":
                shape = numpy_helper.to_array(stored[node.input[1]])
                bits = next(bits for bits in _PACKED if _name(weight, bits) in stored)
                whole = numpy_helper.to_array(stored[_name(weight, bits)])
                parts = [(whole >> np.uint8(bits * place)) & np.uint8(2**bits - 1) for place in range(8 // bits)]
                flat = np.concatenate(parts)[: int(np.prod(shape))].astype(np.int16) - 2 ** (bits - 1)
                yield weight, flat.astype(np.int8).reshape(shape)
