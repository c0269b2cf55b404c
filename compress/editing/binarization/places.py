"""Which convolutions take bits, and why the others do not.

The first and the last see pixels and give logits, and what reads a concatenation has the skip's detail in its input:
these stay finer in every binary network that is worth having (Zhuang et al. 2019, arXiv 1811.10413; Bladder
ultrasound: Scientific Reports 2023, s41598-023-42000-9).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from compress.editing.layer_replacement import CONVS, Site, finite, not_plain
from compress.editing.named_layers import named
from compress.task import Task
from export.capture import capture
from export.graph import LAYERS, aten, layer_name

NARROW = 8
"""Layers with fewer channels than this on either side have next to nothing to save."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the convolutions of a network stand, by the names of their layers."""

    first: frozenset[str]
    last: frozenset[str]
    behind_skips: frozenset[str]
    compared: frozenset[str]
    """Those of whose answers the network asks where they are largest, as unpooling does."""

    @staticmethod
    def of(net: nn.Module, task: Task) -> Places:
        """As the network's own graph says.

        Raises:
            ExportError: if the network's Python cannot be captured; then it could not be exported either.
        """
        graph = capture(net, task.example, task.dynamic).graph
        layers = [node for node in graph.nodes if node.target in LAYERS and _is_stored(node)]
        sources = {node: list(_sources(node)) for node in layers}
        (output,) = (node for node in graph.nodes if node.op == "output")
        return Places(
            first=_names(node for node in layers if any(each.op == "placeholder" for each in sources[node])),
            last=_names(node for node in _sources(output) if node.target in LAYERS and _is_stored(node)),
            behind_skips=_names(
                node for node in layers if any(each.target is aten.cat.default for each in sources[node])
            ),
            compared=_names(
                source
                for node in graph.nodes
                if _asks_where(node)
                for source in _sources(node)
                if source.target in LAYERS and _is_stored(source)
            ),
        )


def _is_stored(node: fx.Node) -> bool:
    return isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr"


def _asks_where(node: fx.Node) -> bool:
    """Whether values are compared with each other, for where the larger ones are."""
    if node.target in _POOLS:
        return any(user.target is operator.getitem and user.args[1] == 1 for user in node.users)
    computed = [source for source in node.all_input_nodes if source.op == "call_function"]
    return node.target in _ORDERS or (node.target in _COMPARES and len(computed) == 2)


_POOLS = (aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)
_ORDERS = (aten.argmax.default, aten.argmin.default, aten.topk.default, aten.sort.default)
_COMPARES = (aten.ge.Tensor, aten.gt.Tensor, aten.le.Tensor, aten.lt.Tensor, aten.eq.Tensor)


def _names(nodes: Iterable[fx.Node]) -> frozenset[str]:
    return frozenset(map(layer_name, nodes))


def _sources(node: fx.Node) -> Iterable[fx.Node]:
    """What lies before a node, back to the layers that made it; of a layer, before what it reads."""
    waiting = [node.args[0]] if node.target in LAYERS else list(node.all_input_nodes)
    seen: set[Any] = set()
    while waiting:
        at = waiting.pop()
        if not isinstance(at, fx.Node) or at in seen:
            continue
        seen.add(at)
        yield at
        if at.target not in LAYERS:
            waiting += at.all_input_nodes


def why_wide(site: Site, net: nn.Module, places: Places, keep: Sequence[str]) -> str | None:
    """Why a convolution stays as it is; None if its weights go into bits."""
    if any(named(name, keep) for name in site.names):
        return "named in keep"
    if site.module.transposed:
        return "transposed ones make pixels that nothing after them mends"
    return not_plain(site, net, CONVS) or _by_place(set(site.names), places) or _by_kind(site.module)


def _by_place(names: set[str], places: Places) -> str | None:
    if names & places.first:
        return "the first convolutions see the image itself"
    return "the last convolutions give the logits" if names & places.last else None


def _by_kind(conv: Any) -> str | None:
    if conv.groups > 1:
        return "a convolution in groups has few weights, and each counts"
    if min(conv.in_channels, conv.out_channels) < NARROW:
        return f"fewer than {NARROW} input or output channels: there is next to nothing to save"
    return None if finite(conv) else "its weights are not finite"


def why_real(site: Site, places: Places, *, open_size: bool) -> str | None:
    """Why the activations that a convolution reads stay real numbers; None if they become signs.

    Args:
        open_size: whether images may be of any size.
    """
    conv: Any = site.module
    if set(site.names) & places.behind_skips:
        return "it reads a concatenation, and signs would lose the skip's detail"
    if conv.padding_mode != "zeros":
        return f"it pads by '{conv.padding_mode}', and what is beyond the border would need signs of its own"
    if set(site.names) & places.compared:
        return "the network asks where its answers are largest, and sums of signs are often equal"
    if len(set(site.inputs)) > 1:
        return "it is called on inputs of several kinds, which would need thresholds each"
    if open_size and max(conv.stride) > 1:
        return "it has strides, and of an image of any size no shortcut of its size is known"
    return None
