"""Channels of an activation brought to like widths, the layers before and after it taking the factors.

Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721, section 4.1). Here weights have a scale for each output
channel and activations one for all channels: what is balanced is a channel's width against the weights that read it (as
Xiao et al. 2023, SmoothQuant, arXiv 2211.10438, do), not weights against weights. Tensors that are joined become as
wide as the widest of them.

Legend: C channels of the activation between two layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from export.graph import (
    CONVS,
    TRANSPOSED,
    aten,
    bias_of,
    convolutions,
    groups_of,
    set_constant,
    weight_of,
)
from export.quantization.carriers import CARRIERS, tensors_into
from export.quantization.stretch import SAME
from export.quantization.weight_grids import in_bits

_MOST = 16.0
"""A channel becomes so many times wider or narrower at most."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A layer that reads an activation, and from which of its input channels on."""

    layer: fx.Node
    first: int
    joined: str | None = None
    """The concatenation that it reads."""


def equalized(graph: fx.GraphModule, sizes: Mapping[str, Tensor]) -> tuple[fx.GraphModule, int]:
    """A copy that answers the same in float, and after how many layers channels were brought to like widths.

    Only behind convolutions all of whose readers are convolutions too, with nothing between them but what commutes with
    a factor for each channel.

    Args:
        sizes: the largest absolute value of each channel of activations, by their names.
    """
    graph = copy.deepcopy(graph)
    count = 0
    for node in convolutions(graph):
        readers = list(_readers(graph, node, 0)) if _is_own(node) else []
        size_C = _size(node, sizes)
        if size_C is None or not readers or not all(isinstance(reader, Reader) for reader in readers):
            continue
        plain = [reader for reader in readers if reader is not None]
        beside = [float(sizes[each.joined].max()) for each in plain if each.joined is not None and each.joined in sizes]
        _scale(graph, node, plain, size_C, max([float(size_C.max()), *beside]))
        count += 1
    return graph, count


def joined(graph: fx.GraphModule) -> set[str]:
    """The names of what is concatenated."""
    concatenations = [node for node in graph.graph.nodes if node.target is aten.cat.default]
    return {source.name for node in concatenations for source in tensors_into(node)}


def _is_own(node: fx.Node) -> bool:
    """Whether it is a convolution whose weight nothing else reads."""
    weight = node.args[1]
    plain = node.target in CONVS or (node.target in TRANSPOSED and groups_of(node) == 1)
    return plain and isinstance(weight, fx.Node) and len(weight.users) == 1


def _size(node: fx.Node, sizes: Mapping[str, Tensor]) -> Tensor | None:
    """The width of each channel of what a layer answers, as its readers see it: behind its activation, where that is
    all that reads it.
    """
    while node.name not in sizes:
        if len(node.users) != 1:
            return None
        (node,) = node.users
        if node.target not in SAME:
            return None
    return sizes[node.name]


def _readers(graph: fx.GraphModule, node: fx.Node, first: int, joined: str | None = None) -> Iterator[Reader | None]:
    """All that reads a tensor, whatever moves its values; None stands for what is no convolution that can be scaled."""
    for user in node.users:
        if user.target is aten.sym_size.int:
            continue
        if user.target in (*CONVS, *TRANSPOSED):
            # What is read as a weight, or twice, is no plain input.
            plain = user.args[0] is node and _is_own(user) and not in_bits(graph, user)
            yield Reader(layer=user, first=first, joined=joined) if plain else None
        elif user.target is aten.cat.default and user.args[1:] == (1,) and tensors_into(user).count(node) == 1:
            inputs = tensors_into(user)
            before = sum(int(each.meta["val"].shape[1]) for each in inputs[: inputs.index(node)])
            yield from _readers(graph, user, first + before, user.name)
        elif user.target in SAME or CARRIERS.get(user.target) in ("max_pool", "nearest"):
            yield from _readers(graph, user, first, joined)
        else:
            yield None


def _scale(graph: fx.GraphModule, node: fx.Node, readers: list[Reader], size_C: Tensor, width: float) -> None:
    read_C = torch.stack([_width_read(graph, reader, len(size_C)) for reader in readers]).amax(0)
    alive_C = (size_C > 0) & (read_C > 0)
    if not alive_C.any():
        return
    factor_C = torch.where(alive_C, (read_C / size_C.clamp(min=1e-30)).sqrt(), torch.ones_like(size_C))
    factor_C = factor_C * (width / (size_C * factor_C)[alive_C].max())
    factor_C = torch.where(alive_C, factor_C.clamp(1 / _MOST, _MOST), torch.ones_like(size_C))
    _multiply_outputs(graph, node, factor_C)
    for reader in readers:
        _divide_inputs(graph, reader, factor_C)


def _width_read(graph: fx.GraphModule, reader: Reader, channels: int) -> Tensor:
    """How large the weights are that read each channel, beside the largest of the same output channel."""
    weight, groups = weight_of(graph, reader.layer).abs(), groups_of(reader.layer)
    if reader.layer.target in TRANSPOSED:
        shares = (weight / _largest(weight.amax((0, *range(2, weight.dim())), keepdim=True))).flatten(1).amax(1)
    else:
        of_rows = (
            (weight / _largest(weight.flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1)))).flatten(2).amax(2)
        )
        shares = of_rows.reshape(groups, -1, weight.shape[1]).amax(1).flatten()
    return shares[reader.first : reader.first + channels]


def _largest(size: Tensor) -> Tensor:
    return size.clamp(min=1e-30)


def _multiply_outputs(graph: fx.GraphModule, node: fx.Node, factor_C: Tensor) -> None:
    weight, bias = weight_of(graph, node), bias_of(graph, node)
    ones = [1] * (weight.dim() - 2)
    shape = (1, -1, *ones) if node.target in TRANSPOSED else (-1, 1, *ones)
    set_constant(graph, node, 1, weight * factor_C.reshape(shape))
    if bias is not None:
        set_constant(graph, node, 2, bias * factor_C)


def _divide_inputs(graph: fx.GraphModule, reader: Reader, factor_C: Tensor) -> None:
    node = reader.layer
    weight, groups = weight_of(graph, node), groups_of(node)
    ones = [1] * (weight.dim() - 2)
    inside = weight.shape[0] if node.target in TRANSPOSED else weight.shape[1] * groups
    all_C = torch.ones(inside)
    all_C[reader.first : reader.first + len(factor_C)] = factor_C
    if node.target in TRANSPOSED:
        divided = weight / all_C.reshape(-1, 1, *ones)
    else:
        by_group = all_C.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, dim=0)
        divided = weight / by_group.reshape(*weight.shape[:2], *ones)
    set_constant(graph, node, 1, divided)
