"""An ONNX graph as a module: torch's own layers where the graph has weights, its operators between them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
import torch
from torch import Tensor, nn

from compress.errors import PassError
from compress.networks.foreign.onnx.description import image_of
from compress.networks.foreign.onnx.layers import Layer, Reader
from compress.networks.foreign.onnx.node import Node, Value
from compress.networks.foreign.onnx.operators import applied, following
from export.errors import first_line

SMALL = 16
"""Floats that are no layer's and so few stay in the graph: scales, exponents, limits."""
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_TOLD = (RuntimeError, ValueError, TypeError, IndexError, KeyError)


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
        graph: a tidied onnx.GraphProto (compress/networks/foreign/onnx/tidy.py), with its weights or only their shapes.
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
        reader = Reader(graph, constants, ranks, len(shape), opset)
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
                raise RuntimeError(f"'{step.node.name}' ({step.node.kind}): {first_line(error)}") from error
            for name, answer in zip(step.outputs, answers, strict=False):
                if name:
                    values[name] = answer
                    if see is not None:
                        see(step.node, name, answer)
            for name in step.frees:
                del values[name]
        return values

    def _add(self, node: Node, found: Layer, constants: Mapping[str, Any]) -> str:
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


def _with_frees(drawn: Sequence[Any], answers: Sequence[str]) -> Iterator[_Step]:
    last = {name: index for index, (_, inputs, *_) in enumerate(drawn) for name in inputs if name}
    made = {name for _, _, outputs, *_ in drawn for name in outputs}
    for index, (node, inputs, outputs, layer, run) in enumerate(drawn):
        frees = {name for name in inputs if name in made and last[name] == index and name not in answers}
        yield _Step(node=node, inputs=inputs, outputs=outputs, layer=layer, run=run, frees=tuple(sorted(frees)))


def _tensor_of(tensor: Any) -> Tensor | None:
    """A constant's values; None where only its shape is known."""
    if _is_empty(tensor):
        return None
    with torch.device("cpu"):
        return torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor))).float()


def _is_empty(tensor: Any) -> bool:
    """Whether only the shape of a constant is known."""
    return bool(np.prod(tensor.dims)) and not (
        tensor.raw_data or tensor.float_data or tensor.int32_data or tensor.int64_data or tensor.double_data
    )


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
