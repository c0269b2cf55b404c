"""The grids on which a network's weights can be learnt, the same for every runtime of CPUs.

Legend: O output channels of one scale, C input channels of a group, T taps of the kernel (flat).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx

from export import packed as packing
from export.graph import CONVS, bias_of, convolutions, groups_of, layer_name, weight_of
from export.quantization.carriers import source_of
from export.quantization.integer_weights import by_output
from export.quantization.learnt import Grid, weight_path
from export.quantization.placement import matches
from export.quantization.rules import Rules
from export.quantization.saturation import LARGEST_CODE, depthwise, safe_scale
from export.quantization.scales import Range, Reading, grid, least_scale, weight_scale

_SHARES = tuple(share / 50 for share in range(50, 14, -1))
"""Of the largest weight: where a grid of few bits may end."""


def integer_layers(graph: fx.GraphModule, keep_float: tuple[str, ...]) -> list[fx.Node]:
    """The layers that are not kept in float and whose weight no other layer reads.

    Weights in bits lie on any grid; learnt anew they would need more bits.
    """
    return [
        node
        for node in convolutions(graph)
        if len(source_of(node.args[1]).users) == 1
        and not in_bits(graph, node)
        and not any(matches(layer_name(node), pattern) for pattern in keep_float)
    ]


def in_bits(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the weight of a layer is stored in bits: each output channel has one size, its signs and zeros."""
    return node.target in CONVS and packing.bits_of(weight_of(graph, node)) is not None


def weight_grids(
    graph: fx.GraphModule,
    layers: list[fx.Node],
    ranges: Mapping[str, Range],
    bits_of: Callable[[str], int],
    rules: Rules,
) -> dict[str, Grid]:
    """By the path of its weight, the grid of each layer's weight.

    Args:
        bits_of: how many bits the integers of a layer of this name have, 2 to 8.
    """
    return {weight_path(node): _grid(graph, node, ranges, bits_of(layer_name(node)), rules) for node in layers}


def _grid(graph: fx.GraphModule, node: fx.Node, ranges: Mapping[str, Range], bits: int, rules: Rules) -> Grid:
    step, _ = grid(ranges[source_of(node.args[0]).name], rules)
    weight_OCT = by_output(graph, node)
    bias_O = bias_of(graph, node)
    rows = weight_OCT.shape[0]
    if bias_O is not None and len(bias_O) != rows:
        bias_O = bias_O.reshape(-1, rows).abs().amax(0)
    reading = Reading(bias_O=bias_O, input_scale=float(step))
    if bits == 8:
        scale_O = weight_scale(weight_OCT, [reading])
        if not depthwise(node.target in CONVS, weight_of(graph, node).shape, groups_of(node)):
            scale_O = safe_scale(weight_OCT, scale_O, LARGEST_CODE)
    else:
        least_O = least_scale(weight_OCT, reading).to(weight_OCT.dtype)
        scale_O = torch.maximum(_closest(weight_OCT, bits), least_O)
    return Grid(scale_O=scale_O, bits=bits)


def _closest(weight_OCT: Tensor, bits: int) -> Tensor:
    """The scale of each output channel with the least squared error of its weights."""
    last = 2 ** (bits - 1) - 1
    largest_O = weight_OCT.abs().amax((1, 2)).clamp(min=1e-12)
    scales_SO = torch.stack([share * largest_O / last for share in _SHARES])
    errors_SO = torch.stack(
        [(to_grid(weight_OCT, scale_O, last) - weight_OCT).square().sum((1, 2)) for scale_O in scales_SO]
    )
    return scales_SO.gather(0, errors_SO.argmin(0, keepdim=True))[0]


def to_grid(weight_OCT: Tensor, scale_O: Tensor, last: int) -> Tensor:
    """The nearest points of a grid whose codes are -`last` to `last`."""
    scale = scale_O[:, None, None]
    return (weight_OCT / scale).round().clamp(-last, last) * scale
