"""Concatenated tensors of unlike ranges: the narrow one is stretched, so that integers leave it levels enough.

A concatenation in integers has one grid. An attention map (0 to 1) beside features (0 to 40) keeps 6 of its 256 levels
there. Multiplied by a power of two before, with the weights of whatever reads it divided by the same, it keeps most of
them, and in float nothing changes, to the bit. The multiplication is free: the narrow tensor is quantized with a step
that many times finer than the one that its integers are read with (`STRETCHED`).

Equalization of ranges between layers is from Nagel et al. 2019, arXiv 1906.04721, section 4.1; here it is between the
inputs of one layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx

from export.graph import CONVS, TRANSPOSED, add_constant, aten, clean, constant, groups_of, set_constant, weight_of
from export.quantization.carriers import CARRIERS, known_range, source_of, tensors_into
from export.quantization.qdq import PAIR, STRETCHED
from export.quantization.rules import Rules
from export.quantization.scales import LEVELS, Range, levels

_NOTHING = 2.0**-24
"""Levels."""
SAME = (
    aten.relu.default,
    aten.leaky_relu.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
)
"""Functions of each channel with f(k x) = k f(x) for k > 0."""


def stretch(
    graph: fx.GraphModule, chosen: Collection[str], ranges: Mapping[str, Range], rules: Rules
) -> dict[str, Range]:
    """Multiply inputs of concatenations that would keep too few levels, in place; the ranges, with those of products.

    Only where convolutions read all that comes of the concatenation: their weights take the factor back.
    """
    known = dict(ranges)
    shares: dict[fx.Node, Tensor] = {}
    for node in _concatenations(graph, chosen) if "concat" in rules.carriers else ():
        factors = [_factor(kept) for kept in _kept(graph, node, known)]
        if any(factor > 1 for factor in factors) and _divisible(node):
            shares[node] = _multiply(graph, node, factors, known)
    if shares:
        _divide(graph, shares)
        clean(graph)
    return known


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """An input of a concatenation that shares a grid with a much wider one."""

    name: str
    levels: float
    """How many of its range are left on that grid."""
    stretched: bool
    """Whether `stretch` mends it."""


def narrow_inputs(graph: fx.GraphModule, ranges: Mapping[str, Range]) -> list[Narrow]:
    """Those of every concatenation whose range was calibrated."""
    return [
        Narrow(name=source.name, levels=kept, stretched=_divisible(node))
        for node in _concatenations(graph, ranges)
        for source, kept in zip(tensors_into(node), _kept(graph, node, ranges), strict=True)
        if _factor(kept) > 1
    ]


def _concatenations(graph: fx.GraphModule, chosen: Collection[str]) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.target is aten.cat.default and node.name in chosen]


def _kept(graph: fx.GraphModule, node: fx.Node, known: Mapping[str, Range]) -> list[float]:
    """How many levels each input of a concatenation keeps on the grid of the widest."""
    spans = [known_range(graph, source.name, known) for source in tensors_into(node)]
    widest = max(spans, key=partial(levels, of=(0.0, 1.0)))
    return [levels(span, of=widest) for span in spans]


def _factor(kept: float) -> float:
    """The power of two that an input is multiplied by; what is all but zero on every case has no width to stretch."""
    return float(2.0 ** math.floor(math.log2(255 / kept))) if _NOTHING < kept < LEVELS else 1.0


def _divisible(node: fx.Node) -> bool:
    """Whether convolutions, and nothing else, read a tensor, moved and joined as it may be."""
    if node.target is aten.cat.default and node.args[1:] not in ((1,), (1 - node.meta["val"].dim(),)):
        return False
    return all(_reads_divided(user, node) for user in node.users)


def _reads_divided(user: fx.Node, node: fx.Node) -> bool:
    if user.target is aten.sym_size.int:
        return True
    if user.target in (*CONVS, *TRANSPOSED):
        stored = isinstance(user.args[1], fx.Node) and user.args[1].op == "get_attr"
        # Weights of few bits have no codes between which a divided one could lie.
        few = "grid" in user.meta and user.meta["grid"].bits < 8
        return user.args[0] is node and stored and not few
    return _keeps_channels(user) and _divisible(user)


def _keeps_channels(node: fx.Node) -> bool:
    """Whether an operator moves values without mixing channels, or is the same function of any multiple."""
    if node.target is aten.slice.Tensor:
        return len(node.args) > 1 and isinstance(node.args[1], int) and node.args[1] > 1
    return node.target in SAME or (node.target in CARRIERS and node.target is not aten.pixel_shuffle.default)


def _multiply(graph: fx.GraphModule, node: fx.Node, factors: list[float], known: dict[str, Range]) -> Tensor:
    """Multiply the inputs of a concatenation; returns the factor of each of its channels."""
    inputs = tensors_into(node)
    stretched = [
        source if factor == 1 else _product(graph, node, source, factor, known)
        for source, factor in zip(inputs, factors, strict=True)
    ]
    node.update_arg(0, stretched)
    each = [torch.full((_channels(source),), factor) for source, factor in zip(inputs, factors, strict=True)]
    return torch.cat(each)


def _product(graph: fx.GraphModule, node: fx.Node, source: fx.Node, factor: float, known: dict[str, Range]) -> fx.Node:
    with graph.graph.inserting_before(node):
        product = graph.graph.call_function(aten.mul.Tensor, (source, factor))
    product.meta = {**source.meta, "stretched": factor}
    low, high = known_range(graph, source.name, known)
    known[product.name] = (factor * low, factor * high)
    _widen(node, known[product.name], known)
    return product


def _widen(node: fx.Node, span: Range, known: dict[str, Range]) -> None:
    """Make the ranges of a tensor, and of all that its values are moved into, cover another range."""
    if node.target is aten.relu.default:
        span = (max(span[0], 0.0), max(span[1], 0.0))
    if node.name in known:
        low, high = known[node.name]
        known[node.name] = (min(low, span[0]), max(high, span[1]))
    for user in node.users:
        if _keeps_channels(user):
            _widen(user, span, known)


def _divide(graph: fx.GraphModule, shares: Mapping[fx.Node, Tensor]) -> None:
    """Divide the weights of all that read stretched channels by their factors."""
    factors: dict[fx.Node, Tensor] = {}
    for node in list(graph.graph.nodes):
        if node.target is aten.cat.default:
            sources = tensors_into(node)
            if node in shares or any(source in factors for source in sources):
                own = shares.get(node, torch.ones(_channels(node)))
                factors[node] = own * torch.cat([factors.get(each, torch.ones(_channels(each))) for each in sources])
        elif node.target in (*CONVS, *TRANSPOSED):
            if node.args[0] in factors:
                _divide_weight(graph, node, factors[source_of(node.args[0])])
        elif ("stretched" in node.meta or _keeps_channels(node)) and node.args[0] in factors:
            factors[node] = factors[source_of(node.args[0])]


def _divide_weight(graph: fx.GraphModule, node: fx.Node, factors_C: Tensor) -> None:
    # Neither its own grid nor the means of what it reads are these any more.
    node.meta.pop("grid", None)
    node.meta["stretched_input"] = True
    weight, groups = weight_of(graph, node), groups_of(node)
    ones = [1] * (weight.dim() - 2)
    if node.target in TRANSPOSED:
        divided = weight / factors_C.reshape(-1, 1, *ones)
    else:
        # Output channels lie group by group; each reads the channels of its group.
        by_group = factors_C.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, dim=0)
        divided = weight / by_group.reshape(*weight.shape[:2], *ones)
    set_constant(graph, node, 1, divided)


def _channels(node: fx.Node) -> int:
    return int(node.meta["val"].shape[1])


def read_stretched(graph: fx.GraphModule) -> None:
    """Where a product that `stretch` made is quantized, quantize what it multiplies instead, in place.

    The integers are the same: x * k on a grid of step s is x on one of step s / k. What nothing reads then is left to
    `clean`.
    """
    for pair in list(graph.graph.nodes):
        if pair.target is PAIR and (factor := source_of(pair.args[0]).meta.get("stretched")):
            product = source_of(pair.args[0])
            source = source_of(product.args[0])
            # Its own pair, where nothing else reads it through that, would only round twice.
            if source.target is PAIR and list(source.users) == [product]:
                source = source_of(source.args[0])
            name = source_of(pair.args[1])
            with graph.graph.inserting_before(pair):
                finer = add_constant(graph, f"{name.target}_finer", constant(graph, name) / factor)
                read = graph.graph.call_function(STRETCHED, (source, finer, *pair.args[1:3]))
            pair.replace_all_uses_with(read)
