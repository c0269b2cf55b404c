"""The layers of an ONNX file: what each computes, and how much of a runtime's time is its own.

A runtime fuses and renames nodes. A layer here is a node that computes something of its own (a
convolution, a concatenation) together with what every runtime fuses into it: its activation, its
Quantize and Dequantize, its reshapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper

from export.artifact import Port
from export.errors import BackendError
from export.profile import Profile

Shape = tuple[int, ...]

_CONVS = ("Conv", "ConvTranspose")
_PRODUCTS = ("Gemm", "MatMul")
_NORMS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization")
_MULTIPLIES = re.compile("conv|gemm|mat_?mul|fullyconnected|attention|kgen|myelin", re.IGNORECASE)
"""Kinds of a runtime's nodes that multiply; what only converts or moves has no precision of a layer."""
_FOLLOWING = frozenset(
    (
        *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Elu", "Selu", "Tanh", "Gelu"),
        *("Erf", "Softplus", "Mish", "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Cast", "Identity"),
        *("QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
        *("DepthToSpace", "Slice", "Dropout"),
    )
)
"""Operators that belong to the layer before them, if all their inputs come from one."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an ONNX file."""

    name: str
    """The path of its weight, such as `encoder.0.3`; of a layer without weights, its node's name."""
    kind: str
    """Such as "Conv 3x3"."""
    shape: Shape | None
    """Of its output; None where it cannot be known before running."""
    macs: int | None
    """None where a shape that it depends on is not known."""
    params: int
    bits: int
    """Of a stored weight; 0 without weights."""
    nodes: frozenset[str] = field(default_factory=frozenset)
    """ONNX nodes and tensors that belong to it."""
    microseconds: float = 0.0


def with_times(layers: Sequence[Layer], profile: Profile) -> tuple[list[Layer], dict[str, float]]:
    """The layers, each with its time; and by its kind the runtime's own work (reordering), in microseconds."""
    owners = {name: index for index, layer in enumerate(layers) for name in layer.nodes}
    spent = dict.fromkeys(range(len(layers)), 0.0)
    own: dict[str, float] = {}
    for node in profile.nodes:
        places = [owners[name] for name in node.names if name in owners]
        if places:
            # What computes comes before what was fused into it.
            spent[min(places, key=lambda index: (not layers[index].macs, index))] += node.microseconds
        else:
            own[node.kind] = own.get(node.kind, 0.0) + node.microseconds
    return [replace(layer, microseconds=spent[index]) for index, layer in enumerate(layers)], own


def ran_in(layers: Sequence[Layer], profile: Profile) -> list[str]:
    """The precision ("INT8", "FP16", "FP32") of each layer that multiplies; empty where the runtime names no node."""
    owners = {name: place for place, layer in enumerate(layers) for name in layer.nodes}
    found: dict[int, tuple[float, str]] = {}
    for node in profile.nodes:
        if not node.precision or not _MULTIPLIES.search(node.kind):
            continue
        for place in {owners[name] for name in node.names if name in owners}:
            # Of several nodes that a layer became, the one that takes the most time computes it.
            found[place] = max(found.get(place, (0.0, "")), (node.microseconds + 1e-9, node.precision))
    return [found.get(place, (0.0, ""))[1] for place in range(len(layers))]


def layers_of(path: Path, shape: Shape) -> list[Layer]:
    """The layers of an ONNX file in the order they run, for an input of this shape.

    Raises:
        BackendError: if it is no ONNX file.
    """
    try:
        model = onnx.load(path)
        model = _inferred(model, shape)
    except (OSError, ValueError, DecodeError, onnx.shape_inference.InferenceError) as error:
        raise BackendError(
            f"{path}: not an ONNX file that can be read ({' '.join(str(error).split())[:200]})"
        ) from None
    return _Reading(model).layers()


def opened_port(path: Path) -> tuple[Port, Port]:
    """The one input and the one output of an ONNX file; an axis without a fixed length is -1.

    Raises:
        BackendError: if it is no ONNX file, or has several of them.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, ValueError, DecodeError) as error:
        raise BackendError(
            f"{path}: not an ONNX file that can be read ({' '.join(str(error).split())[:200]})"
        ) from None
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise BackendError(f"{path}: has {len(inputs)} inputs and {len(graph.output)} outputs; one of each is taken")
    return port_of(inputs[0]), port_of(graph.output[0])


def port_of(value: Any) -> Port:
    """An input or output of a graph (onnx.ValueInfoProto)."""
    kind = value.type.tensor_type
    sides = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim)
    return Port(name=value.name, shape=sides, dtype=onnx.TensorProto.DataType.Name(kind.elem_type).lower())


def _inferred(model: Any, shape: Shape) -> Any:
    """The model with every shape that follows from the input's."""
    given = model.graph.input[0].type.tensor_type.shape
    del given.dim[:]
    for side in shape:
        given.dim.add().dim_value = side
    # Written while axes were open, these would stay open.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


class _Reading:
    """One pass over a graph's nodes."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.stored = {tensor.name: tensor for tensor in self.graph.initializer}
        values = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        self.shapes: dict[str, Shape | None] = {value.name: _shape_of(value) for value in values}
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.stored.items()}
        self.constants: dict[str, str] = {name: name for name in self.stored}
        """A tensor that is computed from one stored tensor alone, and that tensor."""
        self.owners: dict[str, int] = {}
        self.found: list[Layer] = []
        self.members: list[set[str]] = []

    def layers(self) -> list[Layer]:
        for node in self.graph.node:
            self._take(node)
        return [replace(layer, nodes=frozenset(names)) for layer, names in zip(self.found, self.members, strict=True)]

    def _take(self, node: Any) -> None:
        inputs = [name for name in node.input if name]
        data = [name for name in inputs if name not in self.constants]
        if not data:
            # A weight's own Dequantize; a Constant has no input at all. Of bits a table tells what they stand for.
            source = self.constants[inputs[node.op_type == "Gather"]] if inputs else node.output[0]
            self.constants |= dict.fromkeys(node.output, source)
            return
        owners = {self.owners.get(name) for name in data}
        (owner,) = owners if len(owners) == 1 else (None,)
        if node.op_type in _FOLLOWING and owner is not None:
            self._join(node, owner)
        else:
            self.found.append(self._layer(node))
            self.members.append(set())
            owner = len(self.found) - 1
        self.members[owner] |= {node.name, *node.output} - {""}
        self.owners |= dict.fromkeys(node.output, owner)

    def _join(self, node: Any, owner: int) -> None:
        layer = self.found[owner]
        shape = self.shapes.get(node.output[0])
        added = 0 if node.op_type in ("QuantizeLinear", "DequantizeLinear") else self._params(node.input)
        self.found[owner] = replace(layer, shape=shape or layer.shape, params=layer.params + added)

    def _layer(self, node: Any) -> Layer:
        weighted = node.op_type in (*_CONVS, *_PRODUCTS, *_NORMS)
        weight = self.constants.get(node.input[1]) if weighted and len(node.input) > 1 else None
        tensor = self.stored.get(weight) if weight is not None else None
        return Layer(
            name=_name(node, None if tensor is None else weight),
            kind=self._kind(node),
            shape=self.shapes.get(node.output[0]),
            macs=self._macs(node),
            params=self._params(node.input[1:3]) if weighted else 0,
            bits=0 if tensor is None or node.op_type in _NORMS else self._bits(node, tensor),
        )

    def _bits(self, node: Any, tensor: Any) -> int:
        """Of a stored weight; several of them share a byte where they are stored in bits."""
        values = math.prod(self._weight_shape(node) or tensor.dims)
        # Two values of ONNX's 4-bit types are one byte in the file, and two when read.
        size = len(tensor.raw_data) or numpy_helper.to_array(tensor).nbytes
        return round(8 * size / max(values, 1))

    def _params(self, names: Iterable[str]) -> int:
        """Values of the stored floats (and integer weights) among these inputs."""
        sources = [
            (name, self.stored[self.constants[name]]) for name in names if self.constants.get(name) in self.stored
        ]
        return sum(
            math.prod(self.shapes.get(name) or tensor.dims)
            for name, tensor in sources
            if tensor.data_type != onnx.TensorProto.INT64
        )

    def _kind(self, node: Any) -> str:
        weight = self._weight_shape(node)
        if node.op_type not in _CONVS or weight is None:
            return str(node.op_type)
        groups = attribute(node, "group", 1)
        return f"{node.op_type} {'x'.join(map(str, weight[2:]))}" + (f", {groups} groups" if groups > 1 else "")

    def _weight_shape(self, node: Any) -> Shape | None:
        if len(node.input) < 2:
            return None
        return self.shapes.get(node.input[1]) or self.shapes.get(self.constants.get(node.input[1], ""))

    def _macs(self, node: Any) -> int | None:
        if node.op_type not in (*_CONVS, *_PRODUCTS):
            return 0
        before, weight = self.shapes.get(node.input[0]), self._weight_shape(node)
        after = self.shapes.get(node.output[0])
        if node.op_type == "ConvTranspose":
            return None if before is None or weight is None else math.prod(before) * math.prod(weight[1:])
        if after is None or before is None or weight is None:
            return None
        if node.op_type == "Conv":
            return math.prod(after) * math.prod(weight[1:])
        inside = before[0] if attribute(node, "transA", 0) else before[-1]
        return math.prod(after) * inside


def _name(node: Any, weight: str | None) -> str:
    if weight is None:
        return str(node.name or node.output[0]).removeprefix("node_")
    path = _path(weight)
    return path.removesuffix(".weight") if path.endswith(".weight") else str(node.name or path).removeprefix("node_")


def layer_of(weight: str) -> str:
    """The layer that a stored weight belongs to: `encoder.0.3` of `encoder.0.3.weight.int8`."""
    return _path(weight).removesuffix(".weight")


def _path(weight: str) -> str:
    # Stored as integers it is named encoder.0.3.weight.int8; a weight of several readers ends in underscores.
    return re.sub(r"\.u?int\d+_*$", "", weight).rstrip("_")


def _shape_of(value: Any) -> Shape | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or any(not axis.HasField("dim_value") for axis in kind.shape.dim):
        return None
    return tuple(axis.dim_value for axis in kind.shape.dim)


def attribute(node: Any, name: str, otherwise: Any) -> Any:
    """The value of a node's attribute; texts are bytes, lists are lists."""
    found = (helper.get_attribute_value(given) for given in node.attribute if given.name == name)
    return next(found, otherwise)


def total(layers: Iterable[Layer]) -> Mapping[str, float]:
    """The sums of all layers: macs, params, microseconds."""
    every = list(layers)
    return {
        "macs": sum(layer.macs or 0 for layer in every),
        "params": sum(layer.params for layer in every),
        "microseconds": sum(layer.microseconds for layer in every),
    }
