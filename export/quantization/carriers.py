"""Operators that only move values, and the scales that what they move must share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import fx

from export.graph import aten
from export.quantization.qdq import PAIR
from export.quantization.rules import Carrier, Rules
from export.quantization.scales import LEVELS, Range, levels

CARRIERS: dict[Any, Carrier] = {
    aten.max_pool2d.default: "max_pool",
    aten.max_pool3d.default: "max_pool",
    aten.cat.default: "concat",
    aten.pixel_shuffle.default: "shuffle",
    aten.slice.Tensor: "shuffle",
    aten.upsample_nearest2d.vec: "nearest",
    aten.upsample_nearest3d.vec: "nearest",
}


IN_FLOAT = "in float"
"""What a node's `meta` has in it where it is an operator that stays in float, whatever reads it."""


def carrier_of(node: fx.Node) -> Carrier | None:
    """What kind of carrier a node is in integers; None if it is none, or stays in float."""
    return None if IN_FLOAT in node.meta else CARRIERS.get(node.target)


def source_of(argument: Any) -> fx.Node:
    """An argument that is a tensor of the graph."""
    assert isinstance(argument, fx.Node)
    return argument


def tensors_into(node: fx.Node) -> list[fx.Node]:
    """The tensors whose values a carrier moves."""
    first = node.args[0]
    return list(first) if isinstance(first, list | tuple) else [source_of(first)]  # type: ignore[arg-type]


def scale_groups(
    graph: fx.GraphModule, chosen: Collection[str], known: Mapping[str, Range], rules: Rules
) -> dict[str, frozenset[str]]:
    """For every chosen tensor, the tensors whose ranges its own must cover.

    Max pooling, shuffling and repeating change no value: their output is quantized exactly as
    their input. A concatenation's output covers its inputs; under `one_scale_concat` they share,
    unless that leaves one of them too few levels.
    """
    groups = _Groups(chosen, known)
    carriers = [node for node in graph.graph.nodes if node.name in chosen and carrier_of(node) in rules.carriers]
    concats = [node for node in carriers if node.target is aten.cat.default]
    for node in carriers:
        if node not in concats:
            groups.join(node.name, tensors_into(node)[0].name)
    for node in concats:
        # The widest first: it says how many levels are left to the others.
        for source in sorted(tensors_into(node), key=lambda source: -levels(known[source.name], of=(0.0, 1.0))):
            if rules.one_scale_concat and groups.all_keep_levels(node.name, source.name):
                groups.join(node.name, source.name)
            else:
                groups.covers[node.name].add(source.name)
    return {node.name: groups.covered_by(node.name) for node in graph.graph.nodes if node.name in chosen}


class _Groups:
    """Tensors that share a grid, and what each must cover besides."""

    def __init__(self, chosen: Collection[str], known: Mapping[str, Range]) -> None:
        self.known = known
        self.members = {name: {name} for name in chosen}
        """The same set for all that share."""
        self.covers = {name: {name} for name in chosen}

    def join(self, name: str, other: str) -> None:
        joined = self.members[name] | self.members[other]
        self.members |= dict.fromkeys(joined, joined)

    def all_keep_levels(self, name: str, other: str) -> bool:
        """Whether each of two groups' tensors keeps levels enough where they share a grid."""
        joined = self.members[name] | self.members[other]
        whole = span_of(self.known, joined)
        spans = [self.known[member] for member in joined]
        return all(levels(span, of=whole) >= LEVELS or levels(span, of=(0.0, 1.0)) == 0 for span in spans)

    def covered_by(self, name: str) -> frozenset[str]:
        return frozenset().union(*(self.covers[member] for member in self.members[name]))


def moves_one_grid(graph: fx.GraphModule, name: str, scales: Mapping[str, frozenset[str]]) -> bool:
    """Whether a tensor is a carrier's output and already lies on its inputs' one grid."""
    (node,) = (node for node in graph.graph.nodes if node.name == name)
    if carrier_of(node) is None:
        return False
    # By now the inputs are read through their pairs.
    sources = [source.args[0] if source.target is PAIR else source for source in tensors_into(node)]
    return all(scales.get(source_of(source).name) == scales[name] for source in sources)


def known_range(graph: fx.GraphModule, name: str, ranges: Mapping[str, Range]) -> Range:
    """The calibrated range of a tensor; what a rewrite shuffled or cropped has its input's."""
    while name not in ranges:
        (node,) = (node for node in graph.graph.nodes if node.name == name)
        assert CARRIERS.get(node.target) == "shuffle", f"{name} was not calibrated"
        name = tensors_into(node)[0].name
    return ranges[name]


def span_of(known: Mapping[str, Range], group: Collection[str]) -> Range:
    """The range that covers those of a group."""
    lows, highs = zip(*(known[member] for member in group), strict=True)
    return min(lows), max(highs)
