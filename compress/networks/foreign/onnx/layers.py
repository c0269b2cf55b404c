"""Nodes with weights as torch's own layers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from compress.errors import WeightsError
from compress.networks.foreign.onnx.node import Node, node_of, titled
from compress.networks.foreign.onnx.operators import OPERATORS
from compress.networks.foreign.onnx.padding import axis_pads, padded

# Known only of arrays: they make shapes, masks and grids that depend on no pixel.
_OF_ARRAYS = (
    "Constant",
    "ConstantOfShape",
    "CumSum",
    "EyeLike",
    "GatherElements",
    "NonZero",
    "OneHot",
    "Range",
    "ScatterElements",
    "ScatterND",
    "TopK",
    "Trilu",
    "Xor",
)
_CONVS = {
    ("Conv", 1): nn.Conv1d,
    ("Conv", 2): nn.Conv2d,
    ("Conv", 3): nn.Conv3d,
    ("ConvTranspose", 1): nn.ConvTranspose1d,
    ("ConvTranspose", 2): nn.ConvTranspose2d,
    ("ConvTranspose", 3): nn.ConvTranspose3d,
}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer as it is to be built."""

    build: Callable[[], nn.Module]
    tensors: Mapping[str, str]
    """For each of the layer's tensors the constant that it is."""
    fit: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
    """A constant, as the layer holds it."""
    run: Callable[[Node, Any, Any], Tensor] = lambda node, layer, x: layer(x)
    absorbed: str | None = None
    """The output of the node after it, where that is computed by the layer too."""


class Reader:
    """A graph read node by node: which of them are layers."""

    def __init__(
        self, graph: Any, constants: Mapping[str, Any], ranks: Mapping[str, int], rank: int, opset: int
    ) -> None:
        self.constants, self.ranks, self.rank = constants, ranks, rank
        self.nodes = [node_of(each, opset) for each in graph.node]
        self.uses = Counter(name for node in self.nodes for name in node.inputs)
        self.uses.update(each.name for each in graph.output)
        self.answers = {each.name for each in graph.output}
        self.asked_by = {name: node for node in self.nodes for name in node.inputs}
        self.absorbed: set[str] = set()
        for node, each in zip(self.nodes, graph.node, strict=True):
            if node.kind not in OPERATORS and node.kind not in LAYERS and node.kind not in _OF_ARRAYS:
                raise WeightsError(f"{titled(each)}: this operator is not known here")

    def layer(self, node: Node) -> Layer | None:
        """The layer that a node is; None if it is none, or its weights are computed."""
        if node.outputs[0] in self.answers and node.kind in _ENDS:
            # As a layer the last activation is seen, and taken off (compress/networks/foreign/probe.py).
            return _ENDS[node.kind](self, node)
        make = LAYERS.get(node.kind)
        weights = [name for name in node.inputs[1:] if name]
        if make is None or not weights or not all(name in self.constants for name in weights):
            if make is not None and node.kind not in OPERATORS:
                raise WeightsError(
                    f"'{node.name}' ({node.kind}): its weights are computed by the network, which is not taken"
                )
            return None
        return make(self, node)

    def dims(self, name: str) -> tuple[int, ...]:
        return tuple(self.constants[name].dims)

    def bias_after(self, node: Node, width: int) -> tuple[str, str] | None:
        """The constant that only the next node adds to each channel at the end, and what that node puts out."""
        after = self.asked_by.get(node.outputs[0])
        if after is None or after.kind != "Add" or self.uses[node.outputs[0]] != 1:
            return None
        other = [name for name in after.inputs if name != node.outputs[0]]
        if len(other) == 1 and other[0] in self.constants and self.dims(other[0]) == (width,):
            return other[0], after.outputs[0]
        return None


def _conv(reader: Reader, node: Node) -> Layer:
    dims = reader.dims(node.inputs[1])
    count, groups = len(dims) - 2, node.get("group", 1)
    kind = _CONVS.get((node.kind, count))
    if kind is None:
        raise WeightsError(f"'{node.name}' ({node.kind}): {count} axes are not known here")
    turned = node.kind == "ConvTranspose"
    fixed = node.get("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not node.get("output_shape", None)
    begins, ends = axis_pads(node, [], dims[2:]) if fixed else ([-1], [0])
    inside = fixed and begins == ends
    options: dict[str, Any] = {
        "in_channels": dims[0] if turned else dims[1] * groups,
        "out_channels": dims[1] * groups if turned else dims[0],
        "kernel_size": dims[2:],
        "stride": tuple(node.get("strides", [1] * count)),
        "padding": tuple(begins) if inside else 0,
        "dilation": tuple(node.get("dilations", [1] * count)),
        "groups": groups,
        "bias": len(node.inputs) > 2 and bool(node.inputs[2]),
    }
    if turned:
        options["output_padding"] = tuple(node.get("output_padding", [0] * count))
    tensors = dict(zip(("weight", "bias"), (name for name in node.inputs[1:] if name), strict=False))
    run = _as_it_is if inside else _cropped if turned else _padded_first
    return Layer(build=lambda: kind(**options), tensors=tensors, run=run)


def _as_it_is(node: Node, layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)


def _padded_first(node: Node, layer: Any, x: Tensor) -> Tensor:
    return layer(padded(x, *axis_pads(node, x.shape[2:], node.get("kernel_shape", layer.kernel_size))))


def _cropped(node: Node, layer: Any, x: Tensor) -> Tensor:
    """A transposed convolution whose answer is cut unevenly."""
    found = layer(x)
    strides = node.get("strides", [1] * (x.dim() - 2))
    wanted = node.get("output_shape", None)
    auto = node.get("auto_pad", "NOTSET")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [side * stride for side, stride in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        begins, ends = axis_pads(node, [], layer.kernel_size)
    else:
        totals = [whole - side for whole, side in zip(found.shape[2:], wanted[-len(strides) :], strict=True)]
        small = [total // 2 for total in totals]
        large = [total - each for total, each in zip(totals, small, strict=True)]
        begins, ends = (small, large) if auto == "SAME_UPPER" else (large, small)
    cut = tuple(slice(b, side - e) for b, side, e in zip(begins, found.shape[2:], ends, strict=True))
    return found[(slice(None), slice(None), *cut)]


def _batch_norm(reader: Reader, node: Node) -> Layer:
    (width,) = reader.dims(node.inputs[1])
    kind = _BATCH_NORMS[reader.ranks.get(node.inputs[0], reader.rank)]
    momentum = round(1 - node.get("momentum", 0.9), 6)
    eps = _plain(node.get("epsilon", 1e-5))
    names = ("weight", "bias", "running_mean", "running_var")
    return Layer(
        build=lambda: kind(width, eps=eps, momentum=momentum), tensors=dict(zip(names, node.inputs[1:5], strict=True))
    )


def _instance_norm(reader: Reader, node: Node) -> Layer:
    (width,) = reader.dims(node.inputs[1])
    kind = _INSTANCE_NORMS[reader.ranks.get(node.inputs[0], reader.rank)]
    eps = _plain(node.get("epsilon", 1e-5))
    return Layer(
        build=lambda: kind(width, eps=eps, affine=True),
        tensors=dict(zip(("weight", "bias"), node.inputs[1:3], strict=True)),
    )


def _layer_norm(reader: Reader, node: Node) -> Layer | None:
    if len([name for name in node.outputs if name]) > 1:
        raise WeightsError(f"'{node.name}' ({node.kind}): answers with its mean too, which is not taken")
    dims = reader.dims(node.inputs[1])
    eps, biased = _plain(node.get("epsilon", 1e-5)), len(node.inputs) > 2 and bool(node.inputs[2])
    names = [name for name in node.inputs[1:] if name]
    return Layer(
        build=lambda: nn.LayerNorm(dims, eps=eps, bias=biased),
        tensors=dict(zip(("weight", "bias"), names, strict=False)),
    )


def _group_norm(reader: Reader, node: Node) -> Layer:
    (width,) = reader.dims(node.inputs[1])
    groups, eps = node.get("num_groups", 1), _plain(node.get("epsilon", 1e-5))
    if node.opset < 21:
        # One scale for a group; how wide a group is stands nowhere but in the image's channels.
        raise WeightsError(
            f"'{node.name}' ({node.kind}): has one scale a group, as only opset 18 to 20 have it: export with opset 21"
        )
    return Layer(
        build=lambda: nn.GroupNorm(groups, width, eps=eps),
        tensors=dict(zip(("weight", "bias"), node.inputs[1:3], strict=True)),
    )


def _linear(reader: Reader, node: Node) -> Layer | None:
    dims = reader.dims(node.inputs[1])
    if len(dims) != 2:
        return None
    bias = reader.bias_after(node, dims[1])
    tensors = {"weight": node.inputs[1]}
    if bias is not None:
        tensors["bias"] = bias[0]
        reader.absorbed.add(bias[1])
    return Layer(
        build=lambda: nn.Linear(dims[0], dims[1], bias=bias is not None),
        tensors=tensors,
        fit=lambda name, tensor: tensor.t() if name == "weight" else tensor,
        absorbed=None if bias is None else bias[1],
    )


def _gemm(reader: Reader, node: Node) -> Layer | None:
    dims, across = reader.dims(node.inputs[1]), bool(node.get("transB", 0))
    plain = node.get("alpha", 1.0) == 1 and node.get("beta", 1.0) == 1 and not node.get("transA", 0)
    width = dims[0] if across else dims[1]
    biased = len(node.inputs) > 2 and bool(node.inputs[2])
    if not plain or (biased and reader.dims(node.inputs[2]) != (width,)):
        return None
    return Layer(
        build=lambda: nn.Linear(dims[1] if across else dims[0], width, bias=biased),
        tensors=dict(zip(("weight", "bias"), (name for name in node.inputs[1:] if name), strict=False)),
        fit=lambda name, tensor: tensor if across or name == "bias" else tensor.t(),
    )


def _prelu(reader: Reader, node: Node) -> Layer | None:
    dims = reader.dims(node.inputs[1])
    if np.prod(dims) != max(dims, default=1) or len(dims) != reader.rank - 1 or dims[0] != max(dims):
        return None
    return Layer(
        build=lambda: nn.PReLU(dims[0]),
        tensors={"weight": node.inputs[1]},
        fit=lambda name, tensor: tensor.reshape(-1),
    )


def _sigmoid(reader: Reader, node: Node) -> Layer | None:
    return Layer(build=nn.Sigmoid, tensors={})


def _softmax(reader: Reader, node: Node) -> Layer | None:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    if node.opset < 13 and axis not in (-1, reader.rank - 1):
        return None
    return Layer(build=lambda: nn.Softmax(dim=axis), tensors={})


_ENDS: Mapping[str, Callable[[Reader, Node], Layer | None]] = {"Sigmoid": _sigmoid, "Softmax": _softmax}


LAYERS: Mapping[str, Callable[[Reader, Node], Layer | None]] = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _linear,
    "PRelu": _prelu,
}


KNOWN = (*OPERATORS, *LAYERS, *_OF_ARRAYS)


def _plain(number: float) -> float:
    """An ONNX attribute is a 32-bit float: 1e-5 is read as 9.999999747378752e-06."""
    return float(f"{number:.7g}")
