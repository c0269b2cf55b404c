"""Parts of a graph with one tensor in and one out, which can be fitted by themselves.

Block-wise reconstruction fits layers together whose errors meet before anything else reads them (Li et al. 2021, BRECQ,
arXiv 2102.05426, section 3.3).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx

from export.quantization.carriers import source_of

MOST_LAYERS = 3
"""Layers that are fitted together."""
_REACH = 40
"""Operations after a layer among which the end of its region is looked for."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Operations that read one tensor, and of which others read one."""

    entry: fx.Node
    nodes: tuple[fx.Node, ...]
    """In order; the last one's answer is what others read."""
    layers: tuple[fx.Node, ...]

    @property
    def exit(self) -> fx.Node:
        """What others read."""
        return self.nodes[-1]


def regions(graph: fx.GraphModule, layers: Collection[fx.Node]) -> list[Region]:
    """Regions that together have each of these layers once, in the order in which they end."""
    order = [node for node in graph.graph.nodes if node.op != "get_attr"]
    place = {node: number for number, node in enumerate(order)}
    covered: set[fx.Node] = set()
    found = []
    for layer in order:
        if layer in layers and layer not in covered:
            region = _largest(layer, order[place[layer] : place[layer] + _REACH], layers, covered)
            covered.update(region.nodes)
            found.append(region)
    return sorted(found, key=lambda region: place[region.exit])


def _largest(layer: fx.Node, after: list[fx.Node], layers: Collection[fx.Node], covered: Collection[fx.Node]) -> Region:
    entry = source_of(layer.args[0])
    inside: list[fx.Node] = []
    best = Region(entry=entry, nodes=(layer,), layers=(layer,))
    for node in after:
        if node.op != "call_function" or node in covered or not _reads_only(node, {entry, *inside}):
            continue
        inside.append(node)
        region = _ending_at(node, entry, inside, layers)
        if layer in region.nodes and len(best.layers) <= len(region.layers) <= MOST_LAYERS and _closed(region):
            best = region
    return best


def _reads_only(node: fx.Node, known: Collection[fx.Node]) -> bool:
    read = [source for source in node.all_input_nodes if source.op != "get_attr"]
    return bool(read) and all(source in known for source in read)


def _ending_at(exit: fx.Node, entry: fx.Node, inside: list[fx.Node], layers: Collection[fx.Node]) -> Region:
    needed = {exit}
    for node in reversed(inside):
        if node in needed:
            needed.update(source for source in node.all_input_nodes if source.op != "get_attr" and source is not entry)
    nodes = tuple(node for node in inside if node in needed)
    return Region(entry=entry, nodes=nodes, layers=tuple(node for node in nodes if node in layers))


def _closed(region: Region) -> bool:
    within = set(region.nodes)
    return all(user in within for node in region.nodes[:-1] for user in node.users)
