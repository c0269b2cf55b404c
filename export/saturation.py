"""Where 16 bits cannot hold a sum of two products, and the weights with which they always can.

Without VNNI an x86 CPU multiplies uint8 by int8 with VPMADDUBSW: it adds the products of a *pair* of neighbours in
int16 and cuts the sum off at 32767. Pairs whose weights differ in sign never get there (255 x 127 = 32385), so that
the weights alone tell whether a layer ever does, whatever image it is shown.

Legend: O output channels, C input channels of a group, K = taps x C weights of an output channel, taps outermost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

LARGEST_SUM = 2**15 - 1
LARGEST_CODE = 255
"""Of a uint8 activation. One that no calibration case reached can still come: only a bound in the graph excludes it."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CARRIERS = ("MaxPool", "Concat", "DepthToSpace", "Slice", "Resize", "Reshape", "Transpose", "Flatten", "Squeeze")
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
class LayerSums:
    """The sums of pairs that one integer layer of a file can reach."""

    layer: str
    """The path of its weight, such as `encoder.0.3`."""
    largest: int
    """The largest absolute sum of two products, over every image."""
    unsafe: int
    """Output channels that can leave 16 bits."""
    channels: int


@dataclass(frozen=True, kw_only=True)
class PairSums:
    """Whether the integer layers of a file can leave 16 bits: what its sidecar says of it."""

    largest: int
    """The largest absolute sum of two products in any layer, over every image."""
    layers: int
    unsafe: Mapping[str, int]
    """Layers whose sums can be cut off without VNNI, and in how many of their output channels."""


def pair_sums(model: onnx.ModelProto) -> PairSums | None:
    """What is proven of a model; None if none of its layers multiplies uint8 codes by int8 weights."""
    found = sums_of(model)
    if not found:
        return None
    return PairSums(
        largest=max(layer.largest for layer in found),
        layers=len(found),
        unsafe={layer.layer: layer.unsafe for layer in found if layer.unsafe},
    )


def sums_of(model: onnx.ModelProto) -> list[LayerSums]:
    """Of every layer that multiplies uint8 codes by int8 weights, the proof from what is written in the file.

    But not of depthwise convolutions, whose kernels widen their products on every CPU (see `depthwise`).
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        weight = _integers(node, stored, makers)
        if weight is None or depthwise(node.op_type == "Conv", weight.shape, _attribute(node, "group", 1)):
            continue
        codes = _codes(node.input[0], stored, makers)
        if codes is None:
            continue
        sums_O = largest_pairs(_by_output(node, weight)) * codes
        found.append(
            LayerSums(
                layer=layer_of(makers[node.input[1]].input[0]),
                largest=int(sums_O.max()),
                unsafe=int((sums_O > LARGEST_SUM).sum()),
                channels=len(sums_O),
            )
        )
    return found


def layer_of(stored: str) -> str:
    """The layer that a stored weight belongs to: `encoder.0.3` of `encoder.0.3.weight.int8`."""
    return re.sub(r"\.u?int\d+_*$", "", stored).rstrip("_").removesuffix(".weight")


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
        return outputs_of_transposed(weight, _attribute(node, "group", 1))
    return (weight if _attribute(node, "transB", 0) else weight.T)[..., None]


def outputs_of_transposed(weight: Tensor, groups: int) -> Tensor:
    """A transposed convolution's weight (input, output of a group, taps...), by its output channels.

    The same output of every group has one scale; what it multiplies in each group lies side by side.
    """
    inside, outside = weight.shape[:2]
    split = weight.reshape(groups, inside // groups, outside, -1)
    return split.permute(2, 1, 0, 3).reshape(outside, inside // groups, -1)


def _codes(name: str, stored: Mapping[str, Any], makers: Mapping[str, Any]) -> int | None:
    """The largest uint8 code that a layer's input can hold; None if it does not lie on such a grid."""
    node = makers.get(name)
    if node is None:
        return None
    if node.op_type in _CARRIERS:
        every = [_codes(source, stored, makers) for source in node.input[: len(node.input) if _joins(node) else 1]]
        return None if None in every else max(every)  # type: ignore[type-var]
    before = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    if before is None or before.op_type != "QuantizeLinear":
        return None
    zero = numpy_helper.to_array(stored[before.input[2]]) if len(before.input) > 2 else np.uint8(0)
    if zero.dtype != np.uint8:
        return None
    bound = _bound(before.input[0], stored, makers)
    if bound is None:
        return LARGEST_CODE
    code = round(bound / float(numpy_helper.to_array(stored[before.input[1]]))) + int(zero)
    return max(min(code, LARGEST_CODE), int(zero))


def _bound(name: str, stored: Mapping[str, Any], makers: Mapping[str, Any]) -> float | None:
    """The largest value that a tensor can hold on any input; None if there is none."""
    node = makers.get(name)
    if node is None:
        return None
    if node.op_type in _CARRIERS:
        every = [_bound(source, stored, makers) for source in node.input[: len(node.input) if _joins(node) else 1]]
        return None if None in every else max(every)  # type: ignore[type-var]
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _bound(node.input[0], stored, makers)
    if node.op_type == "Clip" and len(node.input) > 2 and node.input[2] in stored:
        return float(numpy_helper.to_array(stored[node.input[2]]))
    return _BOUNDS.get(node.op_type)


def _attribute(node: Any, name: str, otherwise: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), otherwise)


def _joins(node: Any) -> bool:
    return bool(node.op_type == "Concat")
