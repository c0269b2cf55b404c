"""The thin layers in a row that take a layer's place: their shapes for each decomposition, and their weights.

Legend: O output channels, I input channels, k kernel positions, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import nn

from compress.editing.decomposition.cp import cp_weights, or_one
from compress.editing.decomposition.ranks import Array
from compress.editing.layer_replacement import CONVS, TRANSPOSED

Method = Literal["tucker", "cp", "svd", "spatial"]
Ranks = tuple[int, ...]


def method_for(module: nn.Module, method: Method) -> Method:
    """A layer whose kernel has one position is a matrix."""
    return "svd" if max(getattr(module, "kernel_size", (1,))) == 1 else method


def sides(module: Any) -> tuple[int, int]:
    """Input and output channels."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels


def thin_layers(module: Any, method: Method, ranks: Ranks, *, bias: bool) -> nn.Sequential:
    """Layers of the right shapes, their weights still to come."""
    inside, outside = sides(module)
    if isinstance(module, nn.Linear):
        return nn.Sequential(nn.Linear(inside, ranks[0], bias=False), nn.Linear(ranks[0], outside, bias=bias))
    axes = tuple(range(len(module.kernel_size)))
    point = CONVS[len(axes) - 1]
    if method == "tucker":
        core = _along(module, axes, ranks[1], ranks[0])
        return nn.Sequential(point(inside, ranks[1], 1, bias=False), core, point(ranks[0], outside, 1, bias=bias))
    (rank,) = ranks
    if method == "svd" and isinstance(module, TRANSPOSED):
        return nn.Sequential(point(inside, rank, 1, bias=False), _along(module, axes, rank, outside, bias=bias))
    if method == "svd":
        return nn.Sequential(_along(module, axes, inside, rank), point(rank, outside, 1, bias=bias))
    if method == "spatial":
        first = _along(module, axes[:1], inside, rank)
        return nn.Sequential(first, _along(module, axes[1:], rank, outside, bias=bias))
    along = [_along(module, (axis,), rank, rank, groups=rank) for axis in axes if matters(module, axis)]
    return nn.Sequential(point(inside, rank, 1, bias=False), *along, point(rank, outside, 1, bias=bias))


def matters(module: Any, axis: int) -> bool:
    """Whether a convolution does anything along an axis: one of one position may still have a stride."""
    padding = 0 if isinstance(module.padding, str) else module.padding[axis]
    return bool(module.kernel_size[axis] > 1 or module.stride[axis] > 1 or padding > 0)


def _along(
    module: Any, axes: Sequence[int], inside: int, outside: int, *, groups: int = 1, bias: bool = False
) -> nn.Module:
    """A convolution like this one along some of its axes, and of one position along the others."""

    def along(values: Any, otherwise: int) -> Any:
        if isinstance(values, str):
            return values
        return tuple(value if axis in axes else otherwise for axis, value in enumerate(values))

    options = {"output_padding": along(module.output_padding, 0)} if isinstance(module, TRANSPOSED) else {}
    made: nn.Module = type(module)(
        inside,
        outside,
        along(module.kernel_size, 1),
        stride=along(module.stride, 1),
        padding=along(module.padding, 0),
        dilation=along(module.dilation, 1),
        padding_mode=module.padding_mode,
        groups=groups,
        bias=bias,
        **options,
    )
    return made


def unfolded(kernel_OIk: Array, method: Method, transposed: bool) -> list[Array]:
    """The matrices whose ranks are those of the decomposition."""
    outside, inside = kernel_OIk.shape[:2]
    by_output = kernel_OIk.reshape(outside, -1)
    by_input = np.moveaxis(kernel_OIk, 1, 0).reshape(inside, -1)
    if method == "svd":
        return [by_input if transposed else by_output]
    if method == "spatial":
        # Inputs and the first axis, by outputs and the other axes.
        return [np.moveaxis(kernel_OIk, 0, 2).reshape(inside * kernel_OIk.shape[2], -1)]
    return [by_output, by_input]


def weights_for(kernel_OIk: Array, method: Method, ranks: Ranks, transposed: bool, seed: int) -> list[Array]:
    """The weight of each layer, in order; values in the layer's order, whatever their shape."""
    if method == "tucker":
        return _tucker(kernel_OIk, ranks, transposed)
    if method == "cp":
        return cp_weights(kernel_OIk, ranks[0], seed)
    (matrix,) = unfolded(kernel_OIk, method, transposed)
    left, sizes, right = (part for part in np.linalg.svd(matrix, full_matrices=False))
    left, sizes, right = left[:, : ranks[0]], sizes[: ranks[0]], right[: ranks[0]]
    if method == "spatial":
        mixed = (sizes[:, None] * right).reshape(ranks[0], len(kernel_OIk), -1)
        return [left.T, np.moveaxis(mixed, 1, 0)]
    if transposed:
        return [left.T, sizes[:, None] * right]
    return [right, left * sizes]


def _tucker(kernel_OIk: Array, ranks: Ranks, transposed: bool) -> list[Array]:
    import tensorly.decomposition

    (core, (output, input_)), _ = tensorly.decomposition.partial_tucker(kernel_OIk, rank=list(ranks), modes=[0, 1])
    sizes = or_one(np.linalg.norm(core.reshape(len(core), -1), axis=1))
    core = core / sizes.reshape(-1, *[1] * (core.ndim - 1))
    return [input_.T, np.moveaxis(core, 1, 0) if transposed else core, output * sizes]
