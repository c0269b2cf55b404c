"""A tidied graph without its weights, as text for a description, and what is read of it."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from compress.errors import WeightsError
from export.errors import first_line

_LARGEST_TEXT = 2**28


def image_of(graph: Any) -> tuple[str, tuple[int | None, ...]]:
    """The name and the shape of a tidied graph's input; None where an axis is left open."""
    (image,) = graph.input
    axes = image.type.tensor_type.shape.dim
    return image.name, tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes)


def text_of(graph: Any, opset: int, weights: set[str]) -> str:
    """A tidied graph without its weights, as text for a description.

    Args:
        weights: the constants that layers and buffers hold; only their shapes are written.
    """
    bare = onnx.GraphProto()
    bare.CopyFrom(graph)
    del bare.initializer[:]
    for tensor in graph.initializer:
        kept = bare.initializer.add()
        if tensor.name in weights:
            kept.name, kept.data_type = tensor.name, tensor.data_type
            kept.dims.extend(tensor.dims)
        else:
            kept.CopyFrom(tensor)
    model = onnx.helper.make_model(bare, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return base64.b64encode(zlib.compress(model.SerializeToString(deterministic=True), 9)).decode()


def graph_of(text: str) -> tuple[Any, int]:
    """A graph and its opset, from `text_of`'s text.

    Raises:
        WeightsError: if it is no such text.
    """
    model = onnx.ModelProto()
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _LARGEST_TEXT)
        model.ParseFromString(data)
        (opset,) = (entry.version for entry in model.opset_import)
    except (binascii.Error, zlib.error, DecodeError, ValueError) as error:
        raise WeightsError(f"onnx: the described graph is damaged ({first_line(error)})") from None
    return model.graph, opset
