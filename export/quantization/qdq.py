"""Quantize-dequantize: one torch op that ONNX knows as QuantizeLinear + DequantizeLinear.

q = clip(round_half_even(x / scale) + zero_point), x' = (q - zero_point) * scale, the ONNX
definition (opset 13 and later); whether q is uint8 or int8 is the zero point's dtype. Fixed scales
in the file, weights stored as int8: precision is decided here and in no engine's flags.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op
from torch import Tensor


@torch.library.custom_op("segpress::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """Round x to the grid that scale and zero_point give.

    Args:
        x: any shape, float32.
        scale: a scalar, or one value for each index of `axis`.
        zero_point: like scale; its dtype, uint8 or int8, is the integer type.
    """
    shape = [1] * x.dim()
    if scale.dim():
        shape[axis] = -1
    limits = torch.iinfo(zero_point.dtype)
    step, zero = scale.reshape(shape), zero_point.reshape(shape).to(x.dtype)
    return (torch.clamp(torch.round(x / step) + zero, limits.min, limits.max) - zero) * step


@quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    return torch.empty_like(x)


def _to_onnx(x: Any, scale: Any, zero_point: Any, axis: int) -> Any:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero_point, axis=axis), scale, zero_point, axis=axis)


@torch.library.custom_op("segpress::quantize_stretched", mutates_args=())
def quantize_stretched(x: Tensor, finer: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Round x to a grid of step `finer` and read its integers with step `scale`: x times their ratio, rounded.

    Args:
        x: any shape, float32.
        finer, scale, zero_point: scalars; the dtype of the zero point, uint8 or int8, is the integer type.
    """
    limits = torch.iinfo(zero_point.dtype)
    zero = zero_point.to(x.dtype)
    return (torch.clamp(torch.round(x / finer) + zero, limits.min, limits.max) - zero) * scale


@quantize_stretched.register_fake
def _(x: Tensor, finer: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(x)


def _stretched_to_onnx(x: Any, finer: Any, scale: Any, zero_point: Any) -> Any:
    return op.DequantizeLinear(op.QuantizeLinear(x, finer, zero_point), scale, zero_point)


PAIR = torch.ops.segpress.quantize_dequantize.default
"""The op as it appears in a graph."""

STRETCHED = torch.ops.segpress.quantize_stretched.default
"""A pair whose two steps differ (export/quantization/stretch.py)."""

TRANSLATION: dict[Callable[..., Any], Callable[..., Any]] = {PAIR: _to_onnx, STRETCHED: _stretched_to_onnx}
"""For `torch.onnx.export(custom_translation_table=...)`."""


def store_integers(model: ir.Model) -> int:
    """Replace QuantizeLinear of a stored tensor by the integers themselves; returns how many.

    The exporter leaves weights in float32 with a QuantizeLinear behind them, four times the size.
    """
    stored = 0
    for node in list(model.graph):
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None:
            continue
        values = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs]
        if any(value is None for value in values):
            continue
        weight, scale, zero = (value.numpy() for value in values if value is not None)
        axis = node.attributes.get_int("axis", 1)
        shape = [1] * weight.ndim
        if scale.ndim:
            shape[axis] = -1
        limits = np.iinfo(zero.dtype)
        grid = np.rint(weight / scale.reshape(shape)) + zero.reshape(shape).astype(np.float32)
        integers = np.clip(grid, limits.min, limits.max).astype(zero.dtype)
        output = node.outputs[0]
        name = f"{node.inputs[0].name}.{zero.dtype}"
        # Layers that read one weight along different axes store it once for each.
        while name in model.graph.initializers:
            name += "_"
        constant = ir.Value(name=name, const_value=ir.tensor(integers, name=name))
        constant.shape, constant.dtype = ir.Shape(integers.shape), ir.DataType.from_numpy(integers.dtype)
        model.graph.initializers[name] = constant
        ir.convenience.replace_all_uses_with(output, constant)
        weights = node.inputs[0]
        model.graph.remove(node, safe=True)
        if not weights.uses() and weights.name is not None:
            model.graph.initializers.pop(weights.name, None)
        stored += 1
    return stored


def read_by_channel(model: ir.Model) -> int:
    """Have layers with weights in float read integers with a scale for each channel, all alike; returns how many.

    ONNX Runtime puts a layer between two pairs into integers by itself, all of its weights with one scale
    (core/optimizer/qdq_transformer/weight_bias_quantization.cc), but only where what it reads has one scale, too.
    """
    found = [node for node in model.graph if _is_float_layer(node) and _leads_to_integers(node)]
    return sum(_reads_by_channel(model, node) for node in found)


def _is_float_layer(node: ir.Node) -> bool:
    plain = node.op_type in ("Conv", "ConvTranspose", "Gemm")
    return plain and node.inputs[1] is not None and node.inputs[1].is_initializer()


def _leads_to_integers(node: ir.Node) -> bool:
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) != 1 or node.outputs[0].is_graph_output():
        return False
    (reader,) = readers
    return reader.op_type == "QuantizeLinear" or (reader.op_type in ("Relu", "Clip") and _leads_to_integers(reader))


def _reads_by_channel(model: ir.Model, node: ir.Node) -> bool:
    before = None if node.inputs[0] is None else node.inputs[0].producer()
    channels = _channels_read(node)
    if before is None or before.op_type != "DequantizeLinear" or channels < 2:
        return False
    codes, scale, zero = before.inputs
    values = [None if each is None else ir.convenience.get_const_tensor(each) for each in (scale, zero)]
    stored = [_repeated(model, value.numpy(), channels) for value in values if value is not None]
    if len(stored) < 2:
        return False
    read = ir.node("DequantizeLinear", [codes, *stored], {"axis": 1})
    read.outputs[0].name, read.name = f"{node.outputs[0].name}.read", f"{node.name}.read"
    read.outputs[0].shape, read.outputs[0].dtype = before.outputs[0].shape, ir.DataType.FLOAT
    model.graph.insert_before(node, read)
    node.replace_input_with(0, read.outputs[0])
    if not before.outputs[0].uses():
        model.graph.remove(before, safe=True)
    return True


def _channels_read(node: ir.Node) -> int:
    assert node.inputs[1] is not None and node.inputs[1].const_value is not None
    sides = node.inputs[1].const_value.shape
    if node.op_type == "Conv":
        return int(sides[1]) * node.attributes.get_int("group", 1)  # type: ignore[arg-type]
    return int(sides[1 if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) else 0])  # type: ignore[arg-type]


def _repeated(model: ir.Model, value: np.ndarray[Any, Any], channels: int) -> ir.Value:
    number = len(model.graph.initializers)
    while f"by_channel_{number}" in model.graph.initializers:
        number += 1
    name = f"by_channel_{number}"
    constant = ir.Value(
        name=name, const_value=ir.tensor(np.full(channels, value.reshape(-1)[0], value.dtype), name=name)
    )
    constant.shape, constant.dtype = ir.Shape([channels]), ir.DataType.from_numpy(value.dtype)
    model.graph.initializers[name] = constant
    return constant
