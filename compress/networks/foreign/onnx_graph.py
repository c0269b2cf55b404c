"""An ONNX graph as a module: torch's own layers where the graph has weights, its operators between them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import Tensor, nn

from compress.errors import PassError, WeightsError
from compress.networks.foreign.onnx_file import SMALL, attributes_of, image_of, is_empty, titled
from compress.networks.foreign.onnx_operators import OPERATORS, Node, Value, applied, axis_pads, following, padded

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
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
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
_TOLD = (RuntimeError, ValueError, TypeError, IndexError, KeyError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layer:
    """A layer as it is to be built."""

    build: Callable[[], nn.Module]
    tensors: Mapping[str, str]
    """For each of the layer's tensors the constant that it is."""
    fit: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
    """A constant, as the layer holds it."""
    run: Callable[[Node, Any, Any], Tensor] = lambda node, layer, x: layer(x)
    absorbed: str | None = None
    """The output of the node after it, where that is computed by the layer too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Step:
    """One node, and which of the values so far nothing asks for after it."""

    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: str | None
    run: Callable[[Node, Any, Any], Tensor] | None
    frees: tuple[str, ...]


class Translated(nn.Module):
    """A network that computes what an ONNX graph says: {name of output: tensor} = net(image).

    Args:
        graph: a tidied onnx.GraphProto (compress/networks/foreign/onnx_file.py), with its weights or only their shapes.
        batch: how many images it takes at once, if it takes no other number.
    """

    def __init__(self, graph: Any, opset: int, batch: int | None = None) -> None:
        super().__init__()
        self._batch = batch
        self._input, shape = image_of(graph)
        self._written = shape[0]
        self._answers = tuple(each.name for each in graph.output)
        self._arrays: dict[str, np.ndarray] = {}
        self._buffers_of: dict[str, str] = {}
        self._weights: set[str] = set()
        constants = {tensor.name: tensor for tensor in graph.initializer}
        ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in graph.value_info}
        reader = _Reader(graph, constants, ranks, len(shape), opset)
        drawn: list[tuple[Node, tuple[str, ...], tuple[str, ...], str | None, Any]] = []
        built: dict[tuple[Any, ...], str] = {}
        for node in reader.nodes:
            if node.outputs[0] in reader.absorbed:
                continue
            found = reader.layer(node)
            if found is None:
                drawn.append((node, node.inputs, node.outputs, None, None))
                continue
            outputs = (found.absorbed,) if found.absorbed else node.outputs[:1]
            # A layer that is asked twice with the same weights stays one.
            key = (
                node.kind,
                "" if found.tensors else node.name,
                *sorted(found.tensors.items()),
                repr(sorted(node.attributes.items())),
            )
            if key not in built:
                built[key] = self._add(node, found, constants)
            drawn.append((node, node.inputs[:1], outputs, built[key], found.run))
        self._hold(constants, {name for _, inputs, *_ in drawn for name in inputs})
        self._steps = tuple(_with_frees(drawn, self._answers))

    @property
    def weights(self) -> set[str]:
        """The names of the constants that this module holds as tensors of its own."""
        return {*self._weights, *self._buffers_of}

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        if self._batch is not None and image.shape[0] != self._batch:
            raise PassError(
                f"the ONNX file computes {self._batch} image at a time, whatever it is given: export it again with the "
                "batch left open (dynamic axes)"
            )
        answers = self.values(image)
        return answers[self._answers[0]] if len(self._answers) == 1 else {name: answers[name] for name in self._answers}

    def values(self, image: Tensor, see: Callable[[Node, str, Value], None] | None = None) -> dict[str, Value]:
        """The outputs by name; `see` is shown every value on the way."""
        values: dict[str, Value] = {**self._arrays, self._input: image}
        values |= {name: getattr(self, held) for name, held in self._buffers_of.items()}
        for step in self._steps:
            given = [values[name] if name else None for name in step.inputs]
            if self._written is not None and image.shape[0] != self._written:
                given = following(step.node, given, self._written, image.shape[0])
            try:
                if step.layer is None:
                    answers = applied(step.node, given)
                else:
                    assert step.run is not None
                    answers = (step.run(step.node, self.get_submodule(step.layer), given[0]),)
            except _TOLD as error:
                if type(error) not in _TOLD:
                    raise
                raise RuntimeError(f"'{step.node.name}' ({step.node.kind}): {_said(error)}") from error
            for name, answer in zip(step.outputs, answers, strict=False):
                if name:
                    values[name] = answer
                    if see is not None:
                        see(step.node, name, answer)
            for name in step.frees:
                del values[name]
        return values

    def _add(self, node: Node, found: _Layer, constants: Mapping[str, Any]) -> str:
        """Build a layer, with its weights where they are known; its name."""
        layer = found.build()
        for name, source in found.tensors.items():
            self._weights.add(source)
            value = _tensor_of(constants[source])
            if value is not None:
                with torch.no_grad():
                    layer.get_parameter(name).copy_(found.fit(name, value)) if name in dict(
                        layer.named_parameters()
                    ) else layer.get_buffer(name).copy_(found.fit(name, value))
        path = _path(self, node, next(iter(found.tensors.values()), ""))
        *outside, last = path.split(".")
        parent: nn.Module = self
        for part in outside:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
        return path

    def _hold(self, constants: Mapping[str, Any], asked: set[str]) -> None:
        """The constants that are no layer's: few numbers as an array, many as a buffer."""
        for name in sorted(asked & set(constants)):
            tensor = constants[name]
            if tensor.data_type in _FLOATS and np.prod(tensor.dims) > SMALL:
                held = f"constant_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"
                while hasattr(self, held):
                    held += "_"
                value = _tensor_of(tensor)
                self.register_buffer(held, torch.zeros(tuple(tensor.dims)) if value is None else value)
                self._buffers_of[name] = held
            else:
                array = onnx.numpy_helper.to_array(tensor)
                self._arrays[name] = array.astype(np.float32) if array.dtype == np.float16 else array


class _Reader:
    """A graph read node by node: which of them are layers."""

    def __init__(
        self, graph: Any, constants: Mapping[str, Any], ranks: Mapping[str, int], rank: int, opset: int
    ) -> None:
        self.constants, self.ranks, self.rank = constants, ranks, rank
        self.nodes = [_node(each, opset) for each in graph.node]
        self.uses = Counter(name for node in self.nodes for name in node.inputs)
        self.uses.update(each.name for each in graph.output)
        self.answers = {each.name for each in graph.output}
        self.asked_by = {name: node for node in self.nodes for name in node.inputs}
        self.absorbed: set[str] = set()
        for node, each in zip(self.nodes, graph.node, strict=True):
            if node.kind not in OPERATORS and node.kind not in LAYERS and node.kind not in _OF_ARRAYS:
                raise WeightsError(f"{titled(each)}: this operator is not known here")

    def layer(self, node: Node) -> _Layer | None:
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


def _conv(reader: _Reader, node: Node) -> _Layer:
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
    return _Layer(build=lambda: kind(**options), tensors=tensors, run=run)


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


def _batch_norm(reader: _Reader, node: Node) -> _Layer:
    (width,) = reader.dims(node.inputs[1])
    kind = _BATCH_NORMS[reader.ranks.get(node.inputs[0], reader.rank)]
    momentum = round(1 - node.get("momentum", 0.9), 6)
    eps = _plain(node.get("epsilon", 1e-5))
    names = ("weight", "bias", "running_mean", "running_var")
    return _Layer(
        build=lambda: kind(width, eps=eps, momentum=momentum), tensors=dict(zip(names, node.inputs[1:5], strict=True))
    )


def _instance_norm(reader: _Reader, node: Node) -> _Layer:
    (width,) = reader.dims(node.inputs[1])
    kind = _INSTANCE_NORMS[reader.ranks.get(node.inputs[0], reader.rank)]
    eps = _plain(node.get("epsilon", 1e-5))
    return _Layer(
        build=lambda: kind(width, eps=eps, affine=True),
        tensors=dict(zip(("weight", "bias"), node.inputs[1:3], strict=True)),
    )


def _layer_norm(reader: _Reader, node: Node) -> _Layer | None:
    if len([name for name in node.outputs if name]) > 1:
        raise WeightsError(f"'{node.name}' ({node.kind}): answers with its mean too, which is not taken")
    dims = reader.dims(node.inputs[1])
    eps, biased = _plain(node.get("epsilon", 1e-5)), len(node.inputs) > 2 and bool(node.inputs[2])
    names = [name for name in node.inputs[1:] if name]
    return _Layer(
        build=lambda: nn.LayerNorm(dims, eps=eps, bias=biased),
        tensors=dict(zip(("weight", "bias"), names, strict=False)),
    )


def _group_norm(reader: _Reader, node: Node) -> _Layer:
    (width,) = reader.dims(node.inputs[1])
    groups, eps = node.get("num_groups", 1), _plain(node.get("epsilon", 1e-5))
    if node.opset < 21:
        # One scale for a group; how wide a group is stands nowhere but in the image's channels.
        raise WeightsError(
            f"'{node.name}' ({node.kind}): has one scale a group, as only opset 18 to 20 have it: export with opset 21"
        )
    return _Layer(
        build=lambda: nn.GroupNorm(groups, width, eps=eps),
        tensors=dict(zip(("weight", "bias"), node.inputs[1:3], strict=True)),
    )


def _linear(reader: _Reader, node: Node) -> _Layer | None:
    dims = reader.dims(node.inputs[1])
    if len(dims) != 2:
        return None
    bias = reader.bias_after(node, dims[1])
    tensors = {"weight": node.inputs[1]}
    if bias is not None:
        tensors["bias"] = bias[0]
        reader.absorbed.add(bias[1])
    return _Layer(
        build=lambda: nn.Linear(dims[0], dims[1], bias=bias is not None),
        tensors=tensors,
        fit=lambda name, tensor: tensor.t() if name == "weight" else tensor,
        absorbed=None if bias is None else bias[1],
    )


def _gemm(reader: _Reader, node: Node) -> _Layer | None:
    dims, across = reader.dims(node.inputs[1]), bool(node.get("transB", 0))
    plain = node.get("alpha", 1.0) == 1 and node.get("beta", 1.0) == 1 and not node.get("transA", 0)
    width = dims[0] if across else dims[1]
    biased = len(node.inputs) > 2 and bool(node.inputs[2])
    if not plain or (biased and reader.dims(node.inputs[2]) != (width,)):
        return None
    return _Layer(
        build=lambda: nn.Linear(dims[1] if across else dims[0], width, bias=biased),
        tensors=dict(zip(("weight", "bias"), (name for name in node.inputs[1:] if name), strict=False)),
        fit=lambda name, tensor: tensor if across or name == "bias" else tensor.t(),
    )


def _prelu(reader: _Reader, node: Node) -> _Layer | None:
    dims = reader.dims(node.inputs[1])
    if np.prod(dims) != max(dims, default=1) or len(dims) != reader.rank - 1 or dims[0] != max(dims):
        return None
    return _Layer(
        build=lambda: nn.PReLU(dims[0]),
        tensors={"weight": node.inputs[1]},
        fit=lambda name, tensor: tensor.reshape(-1),
    )


def _sigmoid(reader: _Reader, node: Node) -> _Layer | None:
    return _Layer(build=nn.Sigmoid, tensors={})


def _softmax(reader: _Reader, node: Node) -> _Layer | None:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    if node.opset < 13 and axis not in (-1, reader.rank - 1):
        return None
    return _Layer(build=lambda: nn.Softmax(dim=axis), tensors={})


_ENDS: Mapping[str, Callable[[_Reader, Node], _Layer | None]] = {"Sigmoid": _sigmoid, "Softmax": _softmax}
LAYERS: Mapping[str, Callable[[_Reader, Node], _Layer | None]] = {
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


def _node(proto: Any, opset: int) -> Node:
    return Node(
        name=proto.name,
        kind=proto.op_type,
        opset=opset,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes_of(proto),
        proto=proto,
    )


def _with_frees(drawn: Sequence[Any], answers: Sequence[str]) -> Iterator[_Step]:
    last = {name: place for place, (_, inputs, *_) in enumerate(drawn) for name in inputs if name}
    made = {name for _, _, outputs, *_ in drawn for name in outputs}
    for place, (node, inputs, outputs, layer, run) in enumerate(drawn):
        frees = {name for name in inputs if name in made and last[name] == place and name not in answers}
        yield _Step(node=node, inputs=inputs, outputs=outputs, layer=layer, run=run, frees=tuple(sorted(frees)))


def _tensor_of(tensor: Any) -> Tensor | None:
    """A constant's values; None where only its shape is known."""
    if is_empty(tensor):
        return None
    with torch.device("cpu"):
        return torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor))).float()


def _path(net: nn.Module, node: Node, weight: str) -> str:
    """Where a layer stands: as in the network it was exported from, if the file tells, else by its node's name."""
    inside, _, last = weight.rpartition(".")
    scope = [part for part in node.name.split("/") if part]
    if last in ("weight", "kernel") and re.fullmatch(r"\w+(\.\w+)*", inside):
        wanted = inside
    elif node.name.startswith("/") and len(scope) > 1 and scope[-1].startswith(node.kind):
        # TorchScript writes /encoder/encoder.0/encoder.0.1/Conv.
        pairs = pairwise(scope)
        wanted = ".".join(part for part, after in pairs if not after.startswith(f"{part}."))
    else:
        wanted = node.name
    parts = [re.sub(r"\W", "_", part) for part in wanted.split(".")]
    if hasattr(nn.Module(), parts[0]) or parts[0].startswith("_"):
        parts[0] = f"layer{parts[0]}" if parts[0].startswith("_") else f"layer_{parts[0]}"
    taken = dict(net.named_modules())
    layers = {name for name, module in taken.items() if name and type(module) is not nn.Module}
    path = ".".join(parts)
    if path in taken or any(path.startswith(f"{name}.") for name in layers):
        path = "_".join(parts)
        while path in taken:
            path += "_"
    return path


def _plain(number: float) -> float:
    """An ONNX attribute is a 32-bit float: 1e-5 is read as 9.999999747378752e-06."""
    return float(f"{number:.7g}")


def _said(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
