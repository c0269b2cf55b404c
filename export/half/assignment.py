"""Which operations of a graph compute in 16 bits: all but those with a reason, and those between them alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import fx

from export.half.operations import PRODUCTS, is_floating, is_part, stored


def in_16_bits(graph: fx.GraphModule, kept: Collection[str]) -> frozenset[str]:
    """The names of the operations in 16 bits.

    A product without a reason computes in 16 bits; an operation that costs next to nothing does so unless all that it
    reads and all that reads it is in 32 bits, so that nothing is cast there and back.

    Args:
        kept: the names of those that stay in 32 bits.
    """
    halves = {
        node for node in graph.graph.nodes if node.op == "call_function" and is_floating(node) and node.name not in kept
    }
    for region in _regions({node for node in halves if node.target not in PRODUCTS}):
        if not any(node in halves for node in _around(region)):
            halves -= region
    for node in graph.graph.nodes:
        # One of several tensors is in the type that all of them were made in.
        if is_part(node) and is_floating(node):
            (halves.add if node.args[0] in halves else halves.discard)(node)
    return frozenset(node.name for node in halves)


def _regions(nodes: set[fx.Node]) -> Iterator[set[fx.Node]]:
    """Nodes that hang together."""
    left = set(nodes)
    while left:
        region, open_ends = set(), [left.pop()]
        while open_ends:
            node = open_ends.pop()
            region.add(node)
            beside = {each for each in (*node.all_input_nodes, *node.users) if each in left}
            left -= beside
            open_ends += beside
        yield region


def _around(region: set[fx.Node]) -> Iterator[fx.Node]:
    """What a region reads and what reads it, constants left out."""
    for node in region:
        yield from (
            each
            for each in (*node.all_input_nodes, *node.users)
            if each not in region and not stored(each) and each.op != "output"
        )
