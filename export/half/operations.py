"""Operations of a captured graph by what can go wrong with them in 16 bits."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from export.graph import LAYERS, aten


def _every(*names: str) -> frozenset[Any]:
    """All overloads of these operations that this version of torch has."""
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return frozenset(getattr(packet, overload) for packet in packets for overload in packet.overloads())


PRODUCTS = frozenset(LAYERS) | _every(
    *("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "convolution", "scaled_dot_product_attention")
)
"""Sums of products: what 16 bits make faster."""

MOVES = frozenset({operator.getitem}) | _every(
    *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "expand_as", "unsqueeze", "squeeze"),
    *("flatten", "unflatten", "cat", "concat", "stack", "slice", "select", "narrow", "split", "split_with_sizes"),
    *("chunk", "unbind", "clone", "contiguous", "alias", "detach", "roll", "flip", "repeat", "tile", "index"),
    *("index_select", "gather", "pixel_shuffle", "pixel_unshuffle", "max_pool1d", "max_pool2d", "max_pool3d"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "upsample_nearest1d", "upsample_nearest2d"),
    *("upsample_nearest3d", "dropout", "feature_dropout", "repeat_interleave", "unfold", "max_unpool2d"),
)
"""Nothing but values of their inputs, and zeros, comes out of them."""

NORMS = _every("instance_norm", "group_norm", "layer_norm", "native_layer_norm", "native_group_norm", "rms_norm")
"""Divide by a deviation that they measure."""

BATCH_NORMS = _every("_native_batch_norm_legit_no_training", "batch_norm")

SQUARES = _every("var", "var_mean", "std", "std_mean", "linalg_vector_norm", "norm", "frobenius_norm")
"""Add up squares."""

MEANS = _every(
    *("mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
    *("adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
)
RUNNING = _every("cumsum")
SUMS = MEANS | RUNNING | _every("sum")
"""Add up values."""

ABSENT: Mapping[str, frozenset[Any]] = {
    "float16": frozenset(),
    "bfloat16": _every("einsum", "topk", "sort", "hardshrink", "softshrink"),
}
"""Operations that ONNX has not in a format, by its word (opset 22: Einsum, TopK, Shrink)."""

SOFTMAX = _every("softmax", "_softmax", "log_softmax", "_log_softmax", "logsumexp")
"""Add up exponentials, of which the largest is 1."""

GROWING = _every("exp", "exp2", "expm1", "pow", "square", "sinh", "cosh", "prod", "cumprod", "_fft_r2c", "_fft_c2c")
"""A little more in is much more out."""

POSITIONS = _every("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "affine_grid_generator")
"""Read coordinates, of which 16 bits tell too few apart."""

_DIVISIONS = _every("div", "true_divide", "fmod", "remainder")
_NEAR_ZERO = _every("rsqrt", "reciprocal", "log", "log2", "log10", "logit")
_POWERS = _every("pow")


def is_layer(node: fx.Node) -> bool:
    """Whether it is a convolution or linear layer whose weight is stored."""
    return node.target in LAYERS and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr"


def is_part(node: fx.Node) -> bool:
    """Whether it only takes one out of several tensors."""
    return node.target is operator.getitem


def near_zero(node: fx.Node) -> Iterator[fx.Node]:
    """The inputs whose relative error near zero is that of the answer: what is divided by, or taken a logarithm of."""
    place = 1 if node.target in _DIVISIONS else 0
    exponent = node.args[1] if node.target in _POWERS and len(node.args) > 1 else None
    below_one = isinstance(exponent, int | float) and exponent < 0
    if (node.target in _DIVISIONS or node.target in _NEAR_ZERO or below_one) and isinstance(node.args[place], fx.Node):
        yield node.args[place]  # type: ignore[misc]


def is_floating(node: fx.Node) -> bool:
    """Whether a node gives float32 tensors."""
    value: Any = node.meta.get("val")
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return isinstance(value, Tensor) and value.dtype == torch.float32


def stored(node: fx.Node) -> bool:
    """Whether it reads a constant of the graph."""
    return node.op == "get_attr"


def on_the_image(graph: fx.GraphModule) -> frozenset[fx.Node]:
    """The nodes whose value depends on the network's input; others are computed once."""
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return frozenset(found)


def scalars(node: fx.Node) -> list[float]:
    """The numbers that an operation is given with its tensors."""
    given = (*node.args, *node.kwargs.values())
    return [float(each) for each in given if isinstance(each, int | float) and not isinstance(each, bool)]
