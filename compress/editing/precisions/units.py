"""What of a quantized network may go back to float for one runtime, and what reads what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from export.graph import TRANSPOSED, convolutions, fused_end, layer_name, weight_of
from export.quantization.observers import observe
from export.quantization.placement import operator_name, operators
from export.quantization.qdq import PAIR, STRETCHED
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules


@dataclass(frozen=True, kw_only=True)
class Link:
    """One unit reads what another puts out, directly or through what has no precision of its own."""

    before: str
    behind: str
    values: int
    """How many values are read there, for one image."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """The layers and operators of a network that one runtime can compute in integers or in float."""

    layers: Sequence[str]
    operators: Sequence[str]
    """Concatenations, sums and products that read integers where every layer is in them."""
    links: Sequence[Link]
    needs: Sequence[tuple[str, str]]
    """(operator, layer): the operator is in float only where the layer is, too."""
    macs: Mapping[str, int]
    """Multiply-accumulates of every layer, for one image."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.layers, *self.operators)


def units_of(quantized: Quantized, rules: Rules, example: Tensor) -> Units:
    """The units of a network under a runtime's rules.

    Args:
        example: an input of the shape that is compressed for.
    """
    graph, settled = quantized.graph, {name for name, _ in quantized.in_float(rules)}
    layers = {node: layer_name(node) for node in convolutions(graph) if layer_name(node) not in settled}
    reading = _reading_integers(quantized.placed(rules))
    kept = [
        node
        for node in operators(graph)
        if node.name in reading and operator_name(node) not in quantized.assignment.keep_float
    ]
    names = layers | {node: operator_name(node) for node in kept}
    values = _values(graph, example)
    links = {
        (names[before], name): Link(before=names[before], behind=name, values=values.get(before.name, 0))
        for node, name in names.items()
        for before in _sources(node, names)
        if names[before] != name
    }
    ends = {fused_end(node): name for node, name in layers.items()}
    needs = [(names[node], ends[source]) for node in kept for source in node.all_input_nodes if source in ends]
    return Units(
        layers=tuple(dict.fromkeys(layers.values())),
        operators=tuple(map(operator_name, kept)),
        links=tuple(links.values()),
        needs=tuple(dict.fromkeys(needs)) if rules.outputs else (),
        macs=_macs(graph, layers, values),
    )


def _macs(graph: fx.GraphModule, layers: Mapping[fx.Node, str], values: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for node, name in layers.items():
        per_value = weight_of(graph, node)[0].numel()
        read = node.all_input_nodes[0] if node.target in TRANSPOSED else node
        found[name] = found.get(name, 0) + values.get(read.name, 0) * per_value
    return found


def _reading_integers(placed: fx.GraphModule) -> set[str]:
    """The names of nodes that read a quantized tensor."""
    pairs = (PAIR, STRETCHED)
    return {node.name for node in placed.graph.nodes if any(each.target in pairs for each in node.all_input_nodes)}


def _sources(node: fx.Node, known: dict[fx.Node, str]) -> Iterator[fx.Node]:
    """The nearest of the known nodes that a node's values come from."""
    waiting, seen = list(node.all_input_nodes), set[fx.Node]()
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        if source in known:
            yield source
        else:
            waiting += source.all_input_nodes


def _values(graph: fx.GraphModule, example: Tensor) -> dict[str, int]:
    """How many values every node puts out."""
    found: dict[str, int] = {}

    def count(name: str, activation: Tensor) -> None:
        # What puts out several tensors is read through one of them.
        found[name] = activation.numel() if isinstance(activation, Tensor) else 0

    observe(graph, {node.name for node in graph.graph.nodes if node.op == "call_function"}, count, [example])
    return found
