"""Largest and smallest values over axes, which one runtime rounds wrongly.

OpenVINO 2026.4 fuses a FakeQuantize into the reduction before it, and rounds what lies between: with ReduceMax and
ReduceMin, over whichever axes, the answer is another (on AVX2 and AMX alike; means, sums and norms are right). So it is
behind whatever of one tensor alone it fuses with it as well: ReLU, sigmoid, a product with a constant, a transposition.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from export.graph import LAYERS, aten
from export.quantization.carriers import CARRIERS, tensors_into

_EXTREMES = (
    aten.amax.default,
    aten.amin.default,
    aten.max.dim,
    aten.min.dim,
    aten.aminmax.default,
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
)


def of_extremes(argument: Any) -> bool:
    """Whether a tensor is a largest or smallest value over axes, moved or changed one by one as it may be."""
    waiting, seen = [argument] if isinstance(argument, fx.Node) else [], set[fx.Node]()
    while waiting:
        node = waiting.pop()
        if node.target in _EXTREMES:
            return True
        if node not in seen:
            seen.add(node)
            waiting += _changed_by(node)
    return False


def _changed_by(node: fx.Node) -> list[fx.Node]:
    """The tensors whose values a node moves or changes one by one; none for what computes of several."""
    if node.target in LAYERS:
        return []
    if node.target in CARRIERS:
        return tensors_into(node)
    computed = [source for source in node.all_input_nodes if source.op != "get_attr"]
    return computed if len(computed) == 1 else []
