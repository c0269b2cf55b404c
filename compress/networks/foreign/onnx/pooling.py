"""ONNX's pooling, in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.networks.foreign.onnx.node import Node, Operator
from compress.networks.foreign.onnx.padding import axis_pads, padded


def _max_pool(node: Node, x: Tensor) -> Tensor:
    if len([name for name in node.outputs if name]) > 1:
        raise ValueError("answers with the places of its maxima, which is not taken")
    kernel = node.get("kernel_shape", [])
    count = len(kernel)
    pads, strides = axis_pads(node, x.shape[2:], kernel), node.get("strides", [1] * count)
    begins, ends = pads
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[count]
    inside: Any = 0
    if begins == ends and all(2 * begin <= size for begin, size in zip(begins, kernel, strict=True)):
        inside = begins
    else:
        x = padded(x, begins, ends, -math.inf)
    return pool(
        x, kernel, strides, inside, node.get("dilations", [1] * count), ceil_mode=bool(node.get("ceil_mode", 0))
    )


def _average_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.get("kernel_shape", [])
    count = len(kernel)
    if any(each != 1 for each in node.get("dilations", [1] * count)):
        raise ValueError("averages with gaps (dilations), which is not taken")
    begins, ends = axis_pads(node, x.shape[2:], kernel)
    counted, strides = bool(node.get("count_include_pad", 0)), node.get("strides", [1] * count)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[count]
    ceil = bool(node.get("ceil_mode", 0))
    if begins == ends:
        return pool(x, kernel, strides, begins, ceil, counted)
    if counted:
        return pool(padded(x, begins, ends), kernel, strides, 0, ceil)
    share = pool(padded(torch.ones_like(x[:1, :1]), begins, ends), kernel, strides, 0, ceil)
    return pool(padded(x, begins, ends), kernel, strides, 0, ceil) / share


def _over_image(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


OPERATORS: Mapping[str, Operator] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda node, x: x.mean(_over_image(x), keepdim=True),
    "GlobalMaxPool": lambda node, x: x.amax(_over_image(x), keepdim=True),
    "MaxPool": _max_pool,
}
