"""ONNX's reductions and products of matrices, in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from compress.networks.foreign.onnx.node import Node, Operator, Value, number, tensor, whole


def _reduced(compute: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def reduced(node: Node, x: Tensor, axes: Value = None) -> Tensor:
        given = node.get("axes", None) if axes is None else whole(axes)
        if not given:
            if node.get("noop_with_empty_axes", 0):
                return x
            given = list(range(x.dim()))
        return compute(x, list(given), bool(node.get("keepdims", 1)))

    return reduced


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(compute: Callable[..., Tensor]) -> Operator:
    def arg(node: Node, x: Tensor) -> Tensor:
        return compute(x, dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return arg


def _gemm(node: Node, a: Value, b: Value, c: Value = None) -> Tensor:
    like = next(value for value in (a, b) if isinstance(value, Tensor))
    a, b = tensor(a, like), tensor(b, like)
    found = (a.t() if node.get("transA", 0) else a) @ (b.t() if node.get("transB", 0) else b)
    found = found if node.get("alpha", 1.0) == 1 else found * node.get("alpha", 1.0)
    return found if c is None else found + number(c, found) * node.get("beta", 1.0)


def _matmul(node: Node, a: Value, b: Value) -> Tensor:
    like = a if isinstance(a, Tensor) else b
    return torch.matmul(tensor(a, like), tensor(b, like))


def _einsum(node: Node, *values: Value) -> Tensor:
    like = next(value for value in values if isinstance(value, Tensor))
    return torch.einsum(node.get("equation", ""), [tensor(value, like) for value in values])


OPERATORS: Mapping[str, Operator] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "ReduceLogSumExp": _reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
}
