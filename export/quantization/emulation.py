"""What ONNX Runtime answers on an x86 CPU without VNNI, or on one with it, computed on any other.

The runtime's own optimized graph is walked. Integer layers are computed here, pair by pair where 16 bits can be too
few; what lies between them is exact everywhere and stays the runtime's own work, a session for each stretch of it.

How the runtime computes was read from its source (core/mlas/lib/x86_64/QgemmU8X8KernelAvx2.S, ConvSymKernelAvx2.S;
core/providers/cpu/quantization/qlinearconv.cc) and is tested bit for bit: VPMADDUBSW multiplies unsigned codes, zero
points are taken off afterwards; of the K weights of an output channel (taps outermost, channels innermost, within a
group) each four make two pairs.

Legend: N images, C input channels, O output channels, K weights of an output channel, P places of the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.errors import BackendError
from export.layers import attribute
from export.quantization.saturation import LARGEST_CODE, LARGEST_SUM, depthwise

Array = NDArray[Any]
Values = dict[str, Array]
Run = Callable[[Mapping[str, Array]], Values]
"""All outputs of a model, by name, for its inputs."""
Opened = Callable[[onnx.ModelProto], Run]
"""Opens a model in the runtime, without rearranging it."""

_AT_ONCE = 2**22
"""Sums of pairs that are held in memory together."""
_LAYERS = ("QLinearConv", "QLinearMatMul", "QGemm")
_UNKNOWN = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention", "ConvInteger")
"""Other layers with int8 weights: none of them comes of a file that `int8` writes."""


class Step(Protocol):
    """A stretch of the graph: takes what it needs from the values so far, and gives what others need."""

    def __call__(self, values: Values) -> Values: ...


def emulation(model: onnx.ModelProto, opened: Opened, *, pairs_in_16_bits: bool) -> Run:
    """Runs an optimized model as another CPU does.

    Args:
        pairs_in_16_bits: as one without VNNI; else with every sum exact.

    Raises:
        BackendError: if it holds integer layers of a kind whose arithmetic is not known here.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    steps = list(_steps(model, stored, opened, pairs_in_16_bits))
    outputs = [output.name for output in model.graph.output]

    def run(images: Mapping[str, Array]) -> Values:
        values = dict(images)
        for step in steps:
            values |= step(values)
        return {name: values[name] for name in outputs}

    return run


def _steps(model: onnx.ModelProto, stored: Mapping[str, Array], opened: Opened, narrow: bool) -> Iterator[Step]:
    """The nodes in order: each layer that is computed here, and the stretches between them."""
    stretch: list[onnx.NodeProto] = []
    for index, node in enumerate(model.graph.node):
        layer = _layer(node, stored, opened, narrow)
        if layer is None:
            stretch.append(node)
            continue
        if stretch:
            yield _Stretch(model, stretch, model.graph.node[index:], opened)
            stretch = []
        yield layer
    if stretch:
        yield _Stretch(model, stretch, [], opened)


class _Stretch:
    """Nodes that the runtime computes by itself, as one model; opened when the types of its inputs are known."""

    def __init__(
        self, model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], later: Sequence[onnx.NodeProto], opened: Opened
    ) -> None:
        made = {name for node in nodes for name in node.output if name}
        used = dict.fromkeys(name for node in nodes for name in node.input if name)
        needed = {name for node in later for name in node.input} | {output.name for output in model.graph.output}
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [name for name in used if name not in made and name not in stored]
        self.opened = opened
        self.run: Run | None = None
        self.part = helper.make_model(
            helper.make_graph(
                nodes,
                "stretch",
                [],
                # The runtime finds out their types.
                [onnx.ValueInfoProto(name=name) for name in sorted(made & needed)],
                [stored[name] for name in used if name in stored],
            ),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
        )

    def __call__(self, values: Values) -> Values:
        images = {name: values[name] for name in self.inputs}
        if self.run is None:
            for name, value in images.items():
                kind = helper.np_dtype_to_tensor_dtype(value.dtype)
                self.part.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * value.ndim))
            self.run = self.opened(self.part)
        return self.run(images)


def _layer(node: onnx.NodeProto, stored: Mapping[str, Array], opened: Opened, narrow: bool) -> Step | None:
    """The node as an integer layer that is computed here; None for what every CPU computes alike."""
    signed = [name for name in node.input if name in stored and stored[name].dtype == np.int8]
    if node.op_type in _UNKNOWN and signed:
        raise BackendError(f"{node.name}: {node.op_type} with int8 weights is not emulated")
    # Two activations, or uint8 weights: their kernels widen both to 16 bits first, and lose nothing.
    if node.op_type not in _LAYERS or node.input[3] not in signed:
        return None
    weight = stored[node.input[3]]
    if node.op_type == "QLinearConv":
        outputs, channels, *taps = weight.shape
        if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise BackendError(f"{node.name}: padding that depends on the image's size (auto_pad) is not emulated")
        if depthwise(True, weight.shape, attribute(node, "group", 1)):
            return None
        weight_OK = np.moveaxis(weight, 1, -1).reshape(outputs, math.prod(taps) * channels)
        pairs = Pairs.of(weight_OK) if narrow else NONE
        return None if narrow and not len(pairs.first) else _Convolution.of(node, stored, pairs, opened)
    transposed = node.op_type == "QGemm" and attribute(node, "transB", 0) == 1
    pairs = Pairs.of(weight if transposed else weight.T) if narrow else NONE
    return None if narrow and not len(pairs.first) else _Product.of(node, stored, pairs, transposed)


@dataclass(frozen=True)
class Pairs:
    """The pairs of weights whose products 16 bits can be too few for."""

    outputs: Array
    """The output channel of each."""
    first: Array
    """Its place among the channel's K weights; the other weight is the next."""
    weights: Array
    """Shape (pairs, 2), int32."""

    @staticmethod
    def of(weight_OK: Array) -> Pairs:
        """Those of a layer's weights."""
        outputs, length = weight_OK.shape
        padded = np.zeros((outputs, length + length % 2), np.int32)
        padded[:, :length] = weight_OK
        pairs = padded.reshape(outputs, -1, 2)
        same = np.maximum(np.maximum(pairs, 0).sum(2), np.maximum(-pairs, 0).sum(2))
        found, place = np.nonzero(same * LARGEST_CODE > LARGEST_SUM)
        return Pairs(found, 2 * place, pairs[found, place])

    def where(self, mask: Array) -> Pairs:
        """Some of them."""
        return Pairs(self.outputs[mask], self.first[mask], self.weights[mask])

    def lost(self, codes_KP: Callable[[int], Array], outputs: int, places: int) -> Array:
        """What saturation takes from each sum (int64, outputs x places).

        Args:
            codes_KP: a row of the codes that the weights are multiplied with, by the weight's place (int32).
        """
        total = np.zeros((outputs, places), np.int64)
        for place in np.unique(self.first):
            chosen = np.nonzero(self.first == place)[0]
            left, right = codes_KP(int(place)), codes_KP(int(place) + 1)
            # Both codes must be large, which they are at few places.
            large = np.nonzero((left + right) * np.abs(self.weights[chosen]).max() > LARGEST_SUM)[0]
            left, right = left[large], right[large]
            for some in np.array_split(chosen, math.ceil(len(chosen) * max(len(large), 1) / _AT_ONCE)):
                weights = self.weights[some]
                sums = weights[:, :1] * left + weights[:, 1:] * right
                # An output channel has one pair at each place, so that no index comes twice.
                total[np.ix_(self.outputs[some], large)] += np.clip(sums, -LARGEST_SUM - 1, LARGEST_SUM) - sums
        return total


NONE = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2), np.int32))


@dataclass(frozen=True, kw_only=True)
class _Requantization:
    """From the sums of a layer to the codes of its output, as the runtime rounds (MlasRequantizeOutput)."""

    scale: Array
    """float32: input scale x weight scale / output scale, for each output channel or for all."""
    zero: int

    @staticmethod
    def of(input_scale: Array, weight_scale: Array, output_scale: Array, zero: Array) -> _Requantization:
        scale = (np.float32(input_scale) * weight_scale.astype(np.float32)) / np.float32(output_scale)
        return _Requantization(scale=np.atleast_1d(scale), zero=int(zero))

    def __call__(self, sums_OP: Array) -> Array:
        scaled = sums_OP.astype(np.int32).astype(np.float32) * self.scale[:, None]
        clipped = np.clip(scaled, np.float32(-self.zero), np.float32(LARGEST_CODE - self.zero))
        return (np.rint(clipped).astype(np.int32) + self.zero).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    """A QLinearConv, channels first or last."""

    node: onnx.NodeProto
    weight: Array
    """Shape (O, C of a group, taps...)."""
    zero: int
    """Of the input."""
    bias: Array
    requantize: _Requantization
    pairs: Pairs
    exact: Run
    """Its sums in 32 bits, without bias: uint8 weights, which no kernel cuts off."""

    @staticmethod
    def of(node: onnx.NodeProto, stored: Mapping[str, Array], pairs: Pairs, opened: Opened) -> _Convolution:
        x_scale, x_zero, weight, w_scale, _, y_scale, y_zero = (stored[name] for name in node.input[1:8])
        bias = stored[node.input[8]] if len(node.input) > 8 and node.input[8] else np.zeros(len(weight), np.int32)
        return _Convolution(
            node=node,
            weight=weight,
            zero=int(x_zero),
            bias=bias.astype(np.int64),
            requantize=_Requantization.of(x_scale, w_scale, y_scale, y_zero),
            pairs=pairs,
            exact=opened(_exact_convolution(node, weight, int(x_zero))),
        )

    def __call__(self, values: Values) -> Values:
        codes = values[self.node.input[0]]
        last = bool(attribute(self.node, "channels_last", 0))
        codes_NC = np.moveaxis(codes, -1, 1) if last else codes
        sums = self.exact({"codes": np.ascontiguousarray(codes_NC)})["sums"]
        out = np.stack([self._answer(*each) for each in zip(codes_NC, sums, strict=True)])
        return {self.node.output[0]: np.ascontiguousarray(np.moveaxis(out, 1, -1)) if last else out}

    def _answer(self, codes_C: Array, sums_O: Array) -> Array:
        outputs, *sides = sums_O.shape
        exact_OP = sums_O.reshape(outputs, -1).astype(np.int64)
        rows = _Rows.of(self.node, self.weight, codes_C, self.zero, sides)
        lost_OP = np.zeros_like(exact_OP)
        of_group = self.pairs.outputs // (outputs // attribute(self.node, "group", 1))
        for group in np.unique(of_group):
            some = self.pairs.where(of_group == group)
            lost_OP += some.lost(partial(rows, group=int(group)), outputs, exact_OP.shape[1])
        return self.requantize(exact_OP + lost_OP + self.bias[:, None]).reshape(outputs, *sides)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The codes that each weight of a convolution is multiplied with, over all places of the output."""

    padded: Array
    offsets: Sequence[tuple[int, ...]]
    """Of each tap."""
    strides: Sequence[int]
    sides: Sequence[int]
    channels: int
    """Of a group."""

    @staticmethod
    def of(node: onnx.NodeProto, weight: Array, codes_C: Array, zero: int, sides: Sequence[int]) -> _Rows:
        taps = weight.shape[2:]
        rank = len(taps)
        pads = attribute(node, "pads", [0] * 2 * rank)
        dilations = attribute(node, "dilations", [1] * rank)
        around = [(0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        return _Rows(
            padded=np.pad(codes_C, around, constant_values=zero).astype(np.int32),
            offsets=[
                tuple(step * dilation for step, dilation in zip(tap, dilations, strict=True))
                for tap in product(*map(range, taps))
            ],
            strides=attribute(node, "strides", [1] * rank),
            sides=sides,
            channels=weight.shape[1],
        )

    def __call__(self, place: int, group: int) -> Array:
        tap, channel = divmod(place, self.channels)
        if tap == len(self.offsets):
            # What fills up the last four: its weight is zero.
            return np.zeros(math.prod(self.sides), np.int32)
        window = tuple(
            slice(start, start + (side - 1) * stride + 1, stride)
            for start, side, stride in zip(self.offsets[tap], self.sides, self.strides, strict=True)
        )
        return self.padded[group * self.channels + channel][window].reshape(-1)


def _exact_convolution(node: onnx.NodeProto, weight: Array, zero: int) -> onnx.ModelProto:
    """The convolution's sums with weights shifted to uint8: 128 is their zero."""
    kept = ("group", "strides", "pads", "dilations", "kernel_shape", "auto_pad")
    convolution = helper.make_node("ConvInteger", ["codes", "weight", "zero", "middle"], ["sums"])
    convolution.attribute.extend(given for given in node.attribute if given.name in kept)
    sides = [None] * weight.ndim
    graph = helper.make_graph(
        [convolution],
        "sums",
        [helper.make_tensor_value_info("codes", TensorProto.UINT8, sides)],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, sides)],
        [
            numpy_helper.from_array((weight.astype(np.int16) + 128).astype(np.uint8), "weight"),
            numpy_helper.from_array(np.uint8(zero), "zero"),
            numpy_helper.from_array(np.uint8(128), "middle"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@dataclass(frozen=True, kw_only=True)
class _Product:
    """A QLinearMatMul or QGemm with stored weights: rows of codes times a matrix."""

    node: onnx.NodeProto
    weight_OK: Array
    zero: int
    bias: Array
    requantize: _Requantization
    pairs: Pairs

    @staticmethod
    def of(node: onnx.NodeProto, stored: Mapping[str, Array], pairs: Pairs, transposed: bool) -> _Product:
        gemm = node.op_type == "QGemm"
        # QGemm has its bias before the output's scale; without a scale there it puts out floats.
        behind = 7 if gemm else 6
        if len(node.input) < behind + 2 or not all(node.input[behind : behind + 2]):
            raise BackendError(f"{node.name}: {node.op_type} that puts out floats is not emulated")
        weight_OK = stored[node.input[3]] if transposed else stored[node.input[3]].T
        bias = stored[node.input[6]] if gemm and node.input[6] else np.zeros(len(weight_OK))
        scales = (stored[node.input[1]], stored[node.input[4]], stored[node.input[behind]])
        return _Product(
            node=node,
            weight_OK=weight_OK.astype(np.int64),
            zero=int(stored[node.input[2]]),
            bias=bias.astype(np.int64).reshape(-1),
            requantize=_Requantization.of(*scales, stored[node.input[behind + 1]]),
            pairs=pairs,
        )

    def __call__(self, values: Values) -> Values:
        codes = values[self.node.input[0]]
        codes_KP = codes.reshape(-1, codes.shape[-1]).T.astype(np.int64)
        exact_OP = self.weight_OK @ (codes_KP - self.zero)
        rows = np.vstack([codes_KP, np.zeros_like(codes_KP[:1])]).astype(np.int32)
        lost_OP = self.pairs.lost(rows.__getitem__, *exact_OP.shape)
        out_OP = self.requantize(exact_OP + lost_OP + self.bias[:, None])
        return {self.node.output[0]: np.ascontiguousarray(out_OP.T).reshape(*codes.shape[:-1], -1)}
