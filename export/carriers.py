"""Operators that only move values, and the scales that what they move must share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import fx

from export.graph import aten
from export.quantize import PAIR
from export.rules import Carrier, Rules
from export.scales import Range

CARRIERS: dict[Any, Carrier] = {
    aten.max_pool2d.default: "max_pool",
    aten.max_pool3d.default: "max_pool",
    aten.cat.default: "concat",
    aten.pixel_shuffle.default: "shuffle",
    aten.slice.Tensor: "shuffle",
    aten.upsample_nearest2d.vec: "nearest",
    aten.upsample_nearest3d.vec: "nearest",
}


def source_of(argument: Any) -> fx.Node:
    """An argument that is a tensor of the graph."""
    assert isinstance(argument, fx.Node)
    return argument


def tensors_into(node: fx.Node) -> list[fx.Node]:
    """The tensors whose values a carrier moves."""
    first = node.args[0]
    return list(first) if isinstance(first, list | tuple) else [source_of(first)]  # type: ignore[arg-type]


def scale_groups(graph: fx.GraphModule, chosen: set[str], rules: Rules) -> dict[str, frozenset[str]]:
    """For every chosen tensor, the tensors whose ranges its own must cover.

    Max pooling, shuffling and repeating change no value: their output is quantized exactly as
    their input. A concatenation's output covers its inputs; under `one_scale_concat` they share.
    """
    parent = {name: name for name in chosen}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    covers: dict[str, set[str]] = {name: {name} for name in chosen}
    for node in graph.graph.nodes:
        carrier = CARRIERS.get(node.target)
        if node.name not in chosen or carrier not in rules.carriers:
            continue
        for source in tensors_into(node):
            if carrier != "concat" or rules.one_scale_concat:
                parent[root(node.name)] = root(source.name)
            else:
                covers[node.name].add(source.name)
    shared: dict[str, set[str]] = {}
    for name in chosen:
        shared.setdefault(root(name), set()).update(covers[name])
    return {node.name: frozenset(shared[root(node.name)]) for node in graph.graph.nodes if node.name in chosen}


def moves_one_grid(graph: fx.GraphModule, name: str, scales: Mapping[str, frozenset[str]]) -> bool:
    """Whether a tensor is a carrier's output and already lies on its inputs' one grid."""
    (node,) = (node for node in graph.graph.nodes if node.name == name)
    if node.target not in CARRIERS:
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
