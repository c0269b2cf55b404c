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
