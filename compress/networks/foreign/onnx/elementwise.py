"""ONNX's elementwise operators, in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.networks.foreign.onnx.node import Node, Operator, Value, as_operands, number, tensor


def _of_two(compute: Callable[[Any, Any], Any]) -> Operator:
    return lambda node, a, b: compute(*as_operands(a, b))


def _of_one(compute: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, x: compute(x)


def _of_many(compute: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def reduced(node: Node, *values: Value) -> Tensor:
        like = next(value for value in values if isinstance(value, Tensor))
        found = tensor(values[0], like)
        for value in values[1:]:
            found = compute(found, tensor(value, like))
        return found

    return reduced


def _mean(node: Node, *values: Value) -> Tensor:
    return _of_many(torch.add)(node, *values) / len(values)


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and not a.is_floating_point():
        return torch.div(a, b, rounding_mode="trunc")
    return a / b


def _mod(node: Node, a: Value, b: Value) -> Tensor:
    a, b = as_operands(a, b)
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _where(node: Node, condition: Value, a: Value, b: Value) -> Tensor:
    like = next(value for value in (condition, a, b) if isinstance(value, Tensor))
    return torch.where(tensor(condition, like), tensor(a, like), tensor(b, like))


def _clip(node: Node, x: Tensor, low: Value = None, high: Value = None) -> Tensor:
    low = node.get("min", None) if low is None else number(low, x)
    high = node.get("max", None) if high is None else number(high, x)
    return x if low is None and high is None else torch.clamp(x, low, high)


def _prelu(node: Node, x: Tensor, slope: Value) -> Tensor:
    return torch.where(x < 0, x * number(slope, x), x)


def _cast(node: Node, x: Tensor, *_: Value) -> Tensor:
    to = node.get("to", 1)
    kinds = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool}
    # 16-bit floats are computed in 32.
    return x.to(kinds.get(to, torch.float32))


def _flat_softmax(compute: Callable[..., Tensor]) -> Operator:
    def softmax(node: Node, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return compute(x, dim=node.get("axis", -1))
        axis = node.get("axis", 1) % x.dim()
        if axis == x.dim() - 1:
            return compute(x, dim=axis)
        return compute(x.flatten(axis), dim=axis).reshape(x.shape)

    return softmax


OPERATORS: Mapping[str, Operator] = {
    "Abs": _of_one(torch.abs),
    "Add": _of_two(lambda a, b: a + b),
    "And": _of_many(torch.logical_and),
    "Cast": _cast,
    "Ceil": _of_one(torch.ceil),
    "Clip": _clip,
    "Cos": _of_one(torch.cos),
    "Div": _of_two(_divide),
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "Equal": _of_two(lambda a, b: a == b),
    "Erf": _of_one(torch.erf),
    "Exp": _of_one(torch.exp),
    "Floor": _of_one(torch.floor),
    "Gelu": lambda node, x: F.gelu(x, approximate=node.get("approximate", "none")),
    "Greater": _of_two(lambda a, b: a > b),
    "GreaterOrEqual": _of_two(lambda a, b: a >= b),
    "HardSigmoid": lambda node, x: torch.clamp(x * node.get("alpha", 0.2) + node.get("beta", 0.5), 0, 1),
    "HardSwish": _of_one(F.hardswish),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "Less": _of_two(lambda a, b: a < b),
    "LessOrEqual": _of_two(lambda a, b: a <= b),
    "Log": _of_one(torch.log),
    "LogSoftmax": _flat_softmax(torch.log_softmax),
    "Max": _of_many(torch.maximum),
    "Mean": _mean,
    "Min": _of_many(torch.minimum),
    "Mish": _of_one(F.mish),
    "Mod": _mod,
    "Mul": _of_two(lambda a, b: a * b),
    "Neg": _of_one(torch.neg),
    "Not": _of_one(torch.logical_not),
    "Or": _of_many(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _of_two(lambda a, b: a**b),
    "Reciprocal": _of_one(torch.reciprocal),
    "Relu": _of_one(torch.relu),
    "Round": _of_one(torch.round),
    "Selu": _of_one(F.selu),
    "Sigmoid": _of_one(torch.sigmoid),
    "Sign": _of_one(torch.sign),
    "Sin": _of_one(torch.sin),
    "Softmax": _flat_softmax(torch.softmax),
    "Softplus": _of_one(F.softplus),
    "Softsign": _of_one(F.softsign),
    "Sqrt": _of_one(torch.sqrt),
    "Sub": _of_two(lambda a, b: a - b),
    "Sum": _of_many(torch.add),
    "Tanh": _of_one(torch.tanh),
    "Where": _where,
}
