"""Where 16 bits cannot hold a sum of two products, and the weights with which they always can.

Without VNNI an x86 CPU multiplies uint8 by int8 with VPMADDUBSW: it adds the products of a *pair* of neighbours in
int16 and cuts the sum off at 32767. Pairs whose weights differ in sign never get there (255 x 127 = 32385), so that
the weights alone tell whether a layer ever does, whatever image it is shown.

Legend: O output channels, C input channels of a group, K = taps x C weights of an output channel, taps outermost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from export.layers import attribute, layer_of

Number = TypeVar("Number", int, float)

LARGEST_SUM = 2**15 - 1
LARGEST_CODE = 255
"""Of a uint8 activation. One that no calibration case reached can still come: only a bound in the graph excludes it."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVERS = ("MaxPool", "Concat", "DepthToSpace", "Slice", "Reshape", "Transpose", "Flatten", "Squeeze")
_BOUNDS = {"Sigmoid": 1.0, "HardSigmoid": 1.0, "Tanh": 1.0, "Softmax": 1.0}
"""The largest value of operators that have one."""


def largest_pairs(weight_OCT: Tensor) -> Tensor:
    """For each output channel the largest absolute sum of a pair of weights of one sign (in the weights' own unit).

    Pairs are neighbouring input channels, (0, 1), (2, 3), ..., of one tap. Where their number is odd, pairs reach over
    to the next tap or end with padding, as each runtime lays them out: there any two weights of an output channel may
    meet.

    Args:
        weight_OCT: output channels, input channels of a group, the taps of the kernel (flat).
    """
    positive, negative = weight_OCT.clamp(min=0), (-weight_OCT).clamp(min=0)
    return torch.maximum(_largest_sum(positive), _largest_sum(negative))


def _largest_sum(size_OCT: Tensor) -> Tensor:
    outputs, channels, taps = size_OCT.shape
    if channels % 2 == 0:
        return size_OCT.reshape(outputs, channels // 2, 2, taps).sum(2).flatten(1).amax(1)
    return size_OCT.flatten(1).topk(min(2, channels * taps), dim=1).values.sum(1)


def safe_scale(weight_OCT: Tensor, scale_O: Tensor, code: int = LARGEST_CODE) -> Tensor:
    """Scales, as fine as they may be and no finer than given, with which no pair of products leaves 16 bits.

    A channel whose pairs all fit keeps its scale. At twice the scale every weight is within 64, and any pair fits.

    Args:
        weight_OCT: as in `largest_pairs`, in float.
        scale_O: the scale of each output channel that its largest weight asks for.
        code: the largest code of the layer's input.
    """
    limit = LARGEST_SUM // max(code, 1)
    pairs_O = largest_pairs(weight_OCT)
    scale = torch.maximum(scale_O, pairs_O / limit)
    while True:
        # Rounding can add a half to each of the two.
        integers = (weight_OCT / scale[:, None, None]).round()
        too_large = largest_pairs(integers) > limit
        if not too_large.any():
            return torch.where(scale > scale_O, scale, scale_O)
        scale = torch.where(too_large, scale * (1 + 0.25 / limit), scale)


def depthwise(convolution: bool, shape: Sequence[int], groups: int) -> bool:
    """Whether a layer is a convolution of one channel into one: ONNX Runtime and OpenVINO widen its products.

    Not so one channel into several (a multiplier), nor a transposed convolution.
    """
    return convolution and groups > 1 and shape[0] == groups and shape[1] == 1


@dataclass(frozen=True, kw_only=True)
class PairSums:
    """Whether the integer layers of a file can leave 16 bits: what its sidecar says of it."""

    largest: int
    """The largest absolute sum of two products in any layer, over every image."""
    layers: int
    unsafe: Mapping[str, int]
    """Layers whose sums can be cut off without VNNI, and in how many of their output channels."""


def pair_sums(model: onnx.ModelProto) -> PairSums | None:
    """What is proven of a model, from what is written in it; None if no layer multiplies 8-bit codes by int8 weights.

    Depthwise convolutions are not counted: their kernels widen their products on every CPU (see `depthwise`).
    """
    found = list(_sums(model.graph))
    if not found:
        return None
    return PairSums(
        largest=max(int(sums_O.max()) for _, sums_O in found),
        layers=len(found),
        unsafe={layer: unsafe for layer, sums_O in found if (unsafe := int((sums_O > LARGEST_SUM).sum()))},
    )


def _sums(graph: Any) -> Iterator[tuple[str, Tensor]]:
    """Each integer layer and the largest sum of a pair in each of its output channels."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        weight = _integers(node, stored, makers)
        if weight is None or depthwise(node.op_type == "Conv", weight.shape, attribute(node, "group", 1)):
            continue
        code = _largest_code(node.input[0], stored, makers)
        if code is not None:
            yield layer_of(makers[node.input[1]].input[0]), largest_pairs(_by_output(node, weight)) * code


def _integers(node: Any, stored: Mapping[str, Any], makers: Mapping[str, Any]) -> Tensor | None:
    """The int8 weight of a layer; None if it has none."""
    maker = makers.get(node.input[1]) if node.op_type in _LAYERS else None
    tensor = stored.get(maker.input[0]) if maker is not None and maker.op_type == "DequantizeLinear" else None
    if tensor is None or tensor.data_type != onnx.TensorProto.INT8:
        return None
    return torch.from_numpy(numpy_helper.to_array(tensor).astype(np.int32))


def _by_output(node: Any, weight: Tensor) -> Tensor:
    """The weight as (output channels, input channels of a group, everything else)."""
    if node.op_type == "Conv":
        return weight.reshape(*weight.shape[:2], -1)
    if node.op_type == "ConvTranspose":
        return outputs_of_transposed(weight, attribute(node, "group", 1))
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return weight[..., None]
    # A matrix of each batch, or a vector: every column is an output channel.
    columns = weight.mT if weight.dim() > 1 else weight
    return columns.reshape(-1, columns.shape[-1], 1)


def outputs_of_transposed(weight: Tensor, groups: int) -> Tensor:
    """A transposed convolution's weight (input, output of a group, taps...), by its output channels.

    The same output of every group has one scale; what it multiplies in each group lies side by side.
    """
    inside, outside = weight.shape[:2]
    split = weight.reshape(groups, inside // groups, outside, -1)
    return split.permute(2, 1, 0, 3).reshape(outside, inside // groups, -1)


def _largest_code(name: str, stored: Mapping[str, Any], makers: Mapping[str, Any]) -> int | None:
    """The largest code that a layer's input can hold, as uint8; None if it does not lie on a grid of 8 bits."""
    node = makers.get(name)
    if node is None:
        return None
    if _only_moves(node):
        return _largest_of([_largest_code(source, stored, makers) for source in _moved(node)])
    before = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    if before is None or before.op_type != "QuantizeLinear":
        return None
    zero = numpy_helper.to_array(stored[before.input[2]]) if len(before.input) > 2 else np.uint8(0)
    if zero.dtype not in (np.uint8, np.int8):
        return None
    bound = _bound(before.input[0], stored, makers)
    if bound is None:
        return LARGEST_CODE
    # Both runtimes shift signed codes by 128 and multiply them as unsigned ones.
    middle = int(zero) + (128 if zero.dtype == np.int8 else 0)
    code = round(bound / float(numpy_helper.to_array(stored[before.input[1]]))) + middle
    return max(min(code, LARGEST_CODE), middle)


def _bound(name: str, stored: Mapping[str, Any], makers: Mapping[str, Any]) -> float | None:
    """The largest value that a tensor can hold on any input; None if there is none."""
    node = makers.get(name)
    if node is None:
        return None
    if _only_moves(node) or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _largest_of([_bound(source, stored, makers) for source in _moved(node)])
    if node.op_type == "Clip" and len(node.input) > 2 and node.input[2] in stored:
        return float(numpy_helper.to_array(stored[node.input[2]]))
    return _BOUNDS.get(node.op_type)


def _only_moves(node: Any) -> bool:
    """Whether what a node puts out are values of its inputs; a cubic Resize overshoots them."""
    return node.op_type in _MOVERS or (node.op_type == "Resize" and attribute(node, "mode", b"nearest") == b"nearest")


def _moved(node: Any) -> Sequence[str]:
    """The tensors whose values a node moves: all of a concatenation's, else the first."""
    return node.input if node.op_type == "Concat" else node.input[:1]


def _largest_of(values: Sequence[Number | None]) -> Number | None:
    """The largest, where all are known."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
