"""An operator of an ONNX graph and the values that it takes: tensors, or arrays where they are about shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
from torch import Tensor

Value = Any
"""A Tensor, an array, or None for an input that is left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """One operator of a graph."""

    name: str
    kind: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: Any
    """The same, as ONNX writes it."""

    def get(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)


Operator = Callable[..., Value]


def tensor(value: Value, like: Tensor) -> Tensor:
    """An array as a tensor beside another."""
    if isinstance(value, Tensor):
        return value
    kind = torch.float32 if value.dtype.kind == "f" else torch.bool if value.dtype.kind == "b" else torch.int64
    if value.size and (value == value.flat[0]).all():
        return torch.full(value.shape, value.flat[0].item(), dtype=kind, device=like.device)
    return torch.tensor(value.tolist(), dtype=kind, device=like.device)


def number(value: Value, other: Tensor) -> Value:
    """A value as a number where it is one, else as a tensor beside another."""
    if isinstance(value, Tensor):
        return value
    if value.size == 1 and value.ndim <= other.dim():
        return value.reshape(-1).tolist()[0]
    return tensor(value, other)


def as_operands(a: Value, b: Value) -> tuple[Value, Value]:
    """Both as tensors, or one of them as a number."""
    if isinstance(a, Tensor):
        return a, number(b, a)
    return number(a, b), b


def whole(value: Value) -> list[Any]:
    """A list of whole numbers, or symbols."""
    if isinstance(value, Tensor):
        raise ValueError("a shape depends on the values of the image")
    return [each if isinstance(each, torch.SymInt) else int(each) for each in value.reshape(-1).tolist()]


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in found.items()}


def titled(node: Any) -> str:
    """A node by its name and its operator."""
    return f"'{node.name or node.output[0]}' ({node.op_type})"


def node_of(proto: Any, opset: int) -> Node:
    """A node of a graph."""
    return Node(
        name=proto.name,
        kind=proto.op_type,
        opset=opset,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes_of(proto),
        proto=proto,
    )
