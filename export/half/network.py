"""A network in 16 bits: stored so, simulated in torch, and written to ONNX with the types that it has.

In the simulation operations are computed in float32 on 16-bit values and rounded to 16 bits, as kernels do that add up
in 32 bits; in the file tensors are of 16 bits, with a Cast where 16 and 32 bits meet. Input and output are float32.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from export.graph import aten, clean, constant, convolutions, layer_name
from export.half.assignment import in_16_bits
from export.half.formats import FORMATS, Format, Word
from export.half.operations import MOVES, is_floating, is_part, stored
from export.half.reasons import in_32_bits_anyway, place_of
from export.modules import Precision
from export.programs.compiled import compiled_once


class Half(nn.Module):
    """A folded graph, and the operations of it that stay in 32 bits, each with its reason.

    Called, it simulates 16 bits in float32; what counts is the artifact made from `typed()`.
    """

    precision: ClassVar[Precision] = "half"
    description: Mapping[str, Any]
    """How `compress` builds it again: the word `half` and what belongs to it."""

    def __init__(self, graph: fx.GraphModule, word: Word, kept: Mapping[str, str]) -> None:
        """Store in 16 bits what is read in 16 bits alone.

        Args:
            graph: float, as `plain` leaves it; its constants become 16-bit ones where all that reads them is.
            kept: the reason of each operation in 32 bits, by the name of its node.
        """
        super().__init__()
        self.format: Format = FORMATS[word]
        self.kept = dict(kept)
        self.graph = graph
        self.halves = in_16_bits(graph, {*kept, *in_32_bits_anyway(graph)})
        self._to_16_bits()
        self._simulated: fx.GraphModule | None = None

    def typed(self) -> fx.GraphModule:
        """The graph with tensors of 16 bits and casts, as it is written to ONNX."""
        return _written(self.graph, self.halves, self.format, simulated=False)

    def simulated(self) -> fx.GraphModule:
        """The graph in float32, with what 16 bits round; its nodes have their names, for those in `halves`."""
        return _written(self.graph, self.halves, self.format, simulated=True)

    def layers(self) -> dict[str, int]:
        """How many convolutions and linear layers compute in 16 bits and in float32."""
        nodes = list(convolutions(self.graph))
        count = sum(node.name in self.halves for node in nodes)
        return {self.format.word: count, "float32": len(nodes) - count}

    def layer_names(self) -> list[str]:
        """The names that `keep` can use."""
        return [layer_name(node) for node in convolutions(self.graph)]

    def reasons(self) -> dict[str, str]:
        """Why operations stay in 32 bits, by the names that users know them by."""
        known = {node.name: node for node in self.graph.graph.nodes}
        return {place_of(known[name]): reason for name, reason in self.kept.items() if name in known}

    def forward(self, image: Tensor) -> Tensor:
        if self._simulated is None:
            # Not a submodule: its tensors are copies, and must not appear in the state dict.
            object.__setattr__(self, "_simulated", self.simulated())
        assert self._simulated is not None
        return self._simulated(image)

    def _to_16_bits(self) -> None:
        """Store constants in 16 bits that are read in 16 bits alone."""
        readers: dict[str, set[str]] = {}
        for node in self.graph.graph.nodes:
            if stored(node) and is_floating(node):
                readers.setdefault(str(node.target), set()).update(user.name for user in node.users)
        for name, names in readers.items():
            if names <= self.halves:
                _store(self.graph, name, self.format.dtype)


def plain(graph: fx.GraphModule) -> fx.GraphModule:
    """Take out of a captured graph, in place, what says a type and changes none: 16 bits would be cast back there."""
    for node in list(graph.graph.nodes):
        if stored(node):
            # Constants that folding made were never traced.
            node.meta.setdefault("val", constant(graph, node))
        elif node.target in _CHECKS:
            graph.graph.erase_node(node)
        elif node.target in _CASTS and is_floating(node) and is_floating(node.args[0]):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif node.target in _TYPED and is_floating(node.all_input_nodes[0]):
            node.args = tuple(None if each is torch.float32 else each for each in node.args)
            node.kwargs = {key: None if each is torch.float32 else each for key, each in node.kwargs.items()}
    clean(graph)
    return graph


_CHECKS = (aten._assert_tensor_metadata.default,)
_CASTS = (aten._to_copy.default, aten.to.dtype, aten.type_as.default, aten.to.dtype_layout)
_TYPED = (
    *(aten.softmax.int, aten.log_softmax.int, aten.mean.dim, aten.mean.default),
    *(aten.sum.dim_IntList, aten.sum.default),
)


def _store(graph: fx.GraphModule, name: str, dtype: torch.dtype) -> None:
    path, _, leaf = name.rpartition(".")
    owner = graph.get_submodule(path)
    value = getattr(owner, leaf).detach().to(dtype)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


@compiled_once
def _written(graph: fx.GraphModule, halves: Collection[str], format: Format, *, simulated: bool) -> fx.GraphModule:
    graph = copy.deepcopy(graph)
    short = {*halves, *_short_constants(graph, format)}
    if simulated:
        graph = graph.float()
    casts = _Casts(graph, format, simulated)
    own = list(graph.graph.nodes)
    for node in own:
        if node.op == "output" or (node.op == "call_function" and _computes(node)):
            for source in filter(is_floating, node.all_input_nodes):
                wanted = node.name in halves
                if (source.name in short) != wanted:
                    node.replace_input_with(source, casts.of(source, wanted))
    if simulated:
        for node in own:
            if node.name in halves and not _exact(node) and not isinstance(node.meta["val"], list | tuple):
                _rounded(graph, node, format)
    clean(graph)
    return graph


def _short_constants(graph: fx.GraphModule, format: Format) -> list[str]:
    """The names of the nodes that read constants of 16 bits."""
    return [node.name for node in graph.graph.nodes if stored(node) and constant(graph, node).dtype == format.dtype]


def _computes(node: fx.Node) -> bool:
    """Whether it computes with floating-point tensors: what only asks for a shape, or is one of several tensors, takes
    them as they are.
    """
    asks = is_part(node) or str(node.target).startswith("aten.sym_")
    return any(map(is_floating, node.all_input_nodes)) and not asks


def _exact(node: fx.Node) -> bool:
    """Whether what it gives of 16-bit values is 16-bit already."""
    if node.target in MOVES and node.all_input_nodes:
        source = node.all_input_nodes[0]
        return not isinstance(source.meta.get("val"), list | tuple) or source.target in MOVES
    return node.target is aten.relu.default


class _Casts:
    """The tensors of a graph in the other precision, each cast once for all its readers."""

    def __init__(self, graph: fx.GraphModule, format: Format, simulated: bool) -> None:
        self.graph, self.format, self.simulated = graph, format, simulated
        self._made: dict[fx.Node, fx.Node] = {}

    def of(self, source: fx.Node, to_16_bits: bool) -> fx.Node:
        """The tensor in 16 bits or in 32, whichever it is not in."""
        if self.simulated and not to_16_bits:
            return source
        if source not in self._made:
            with self.graph.graph.inserting_after(source):
                made = _to(self.graph, source, self.format.dtype if to_16_bits else torch.float32)
            if self.simulated:
                with self.graph.graph.inserting_after(made):
                    made = _to(self.graph, made, torch.float32)
            self._made[source] = made
        return self._made[source]


def _rounded(graph: fx.GraphModule, node: fx.Node, format: Format) -> None:
    """What reads a node reads it rounded."""
    readers = list(node.users)
    with graph.graph.inserting_after(node):
        short = _to(graph, node, format.dtype)
    with graph.graph.inserting_after(short):
        wide = _to(graph, short, torch.float32)
    for reader in readers:
        reader.replace_input_with(node, wide)


def _to(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    return graph.graph.call_function(aten._to_copy.default, (node,), {"dtype": dtype})
