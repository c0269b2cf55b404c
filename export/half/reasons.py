"""Why operations stay in 32 bits: each by its name, from what was seen on real cases.

Nothing is taken to be safe by its kind, and nothing is kept by its kind alone: a norm over few values of a usual size
runs in 16 bits, and a convolution whose sums reach far does not. What calibration cases reach, other images go beyond
by some factor (`HEADROOM`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from export.graph import constant, layer_name
from export.half.formats import Format
from export.half.operations import (
    ABSENT,
    BATCH_NORMS,
    GROWING,
    MOVES,
    NORMS,
    POSITIONS,
    SOFTMAX,
    SQUARES,
    SUMS,
    is_floating,
    is_layer,
    near_zero,
    on_the_image,
    scalars,
    stored,
)
from export.half.statistics import Seen

Unfit = tuple[fx.Node, str]
"""The operation whose tensor 16 bits do not hold, and why."""

HEADROOM = 4.0
"""Values may go so many times beyond those of the calibration cases."""
_GROWS = 64.0
"""The same behind an exponential or a power."""
_UNITS = 16.0
"""Rounding may change a tensor by so many units of the format, over what varies in it."""
_LITTLE = 1e-6
"""A channel of weights with less than this of the largest channel's energy may be rounded to zeros."""


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """Why nodes of a graph stay in 32 bits, by their names."""

    graph: fx.GraphModule
    seen: Mapping[str, Seen]
    format: Format

    def found(self) -> dict[str, str]:
        """The reason of each operation that must stay; in the order of the graph."""
        unfit = self._unfit_tensors()
        found: dict[str, str] = {}
        for node in self.graph.graph.nodes:
            if node.op != "call_function" or not is_floating(node):
                continue
            bad = next((source for source in node.all_input_nodes if source in unfit), None)
            if node.target in MOVES and bad is not None:
                # What it moves is the same tensor.
                unfit.setdefault(node, unfit[bad])
            reason = self._inside(node) or self._own(node, unfit)
            if reason is None and bad is not None:
                origin, why = unfit[bad]
                reason = f"of what it reads, {place_of(origin)}: {why}"
            if reason is not None:
                found[node.name] = reason
        return found

    def _own(self, node: fx.Node, unfit: Mapping[fx.Node, Unfit]) -> str | None:
        origin, why = unfit.get(node, (None, None))
        return why if origin is node else None

    def _unfit_tensors(self) -> dict[fx.Node, Unfit]:
        """Tensors that are not what they were when they are stored in 16 bits."""
        unfit: dict[fx.Node, Unfit] = {}
        for node in self.graph.graph.nodes:
            if is_floating(node) and (reason := self._of_tensor(node)):
                unfit[node] = node, reason
        for node in self.graph.graph.nodes:
            for divisor in near_zero(node) if is_floating(node) else ():
                least = self._seen(node).divisor
                if least < HEADROOM * self.format.smallest:
                    self._spread(divisor, unfit, f"what is divided by it is divided by {least:.1e}")
        return unfit

    def _spread(self, node: fx.Node, unfit: dict[fx.Node, Unfit], reason: str) -> None:
        """To a tensor, and to those whose values it only moves."""
        unfit.setdefault(node, (node, reason))
        if node.target in MOVES:
            for source in filter(is_floating, node.all_input_nodes):
                self._spread(source, unfit, reason)

    def _of_tensor(self, node: fx.Node) -> str | None:
        if stored(node):
            value = constant(self.graph, node)
            return None if self._is_drowned(node, value) else self._of_constant(value)
        small = [each for each in scalars(node) if 0 < abs(each) < self.format.smallest]
        if small and node.op == "call_function" and node.target not in NORMS:
            return f"its constant {small[0]:.1e} is below what {self.format.word} holds"
        seen = self.seen.get(node.name)
        if seen is None:
            return None
        room = _GROWS if node.target in GROWING else HEADROOM
        if seen.largest * room > self.format.largest:
            return f"its values reach {seen.largest:.1e}"
        if seen.error > _UNITS * self.format.unit:
            return f"{self.format.word} would change {seen.error:.1%} of what varies in its values"
        return None

    def _of_constant(self, value: Tensor) -> str | None:
        """Of a stored tensor that is no layer's weight as well: then no layer reads it in 16 bits."""
        largest = float(value.abs().max()) if value.numel() else 0.0
        if largest > self.format.largest:
            return f"its stored values reach {largest:.1e}"
        energy = float(value.square().sum())
        lost = float((value - self.format.rounded(value)).square().sum())
        if value.dim() < 2 and lost > (_UNITS * self.format.unit) ** 2 * energy:
            return f"its stored values, at most {largest:.1e}, vanish in {self.format.word}"
        return None

    def _is_drowned(self, node: fx.Node, value: Tensor) -> bool:
        """Whether what 16 bits lose of a bias is less than rounding the layer's answers changes, in every channel.

        Behind a bias an instance norm takes the mean off: nothing teaches such a bias, and weight decay brings it to
        all but nothing (nnU-Net's).
        """
        if value.dim() != 1 or not node.users:
            return False
        lost_C = (value - self.format.rounded(value)).abs().double()
        for user in node.users:
            if not is_layer(user) or node not in user.args[2:3]:
                return False
            if (lost_C > self.format.unit * self._seen(user).spread).any():
                return False
        return True

    def _inside(self, node: fx.Node) -> str | None:
        """What would go wrong within the operation."""
        seen, word = self._seen(node), self.format.word
        absent = node.target in ABSENT[word]
        if absent or node.target in POSITIONS:
            return f"ONNX has no such operation in {word}" if absent else f"{word} tells too few positions apart"
        if seen.sums * HEADROOM > self.format.largest:
            what = "squares" if node.target in (*NORMS, *SQUARES) else "values" if node.target in SUMS else "products"
            return f"it adds up {what} to {seen.sums:.1e}"
        if seen.deviation < HEADROOM * self.format.smallest:
            return f"it divides by the root of {seen.deviation:.1e}"
        if node.target in (*NORMS, *SQUARES, *SUMS, *SOFTMAX) and seen.terms > self.format.longest:
            return f"it adds up {seen.terms:,} values, and {word} counts to {self.format.longest:,}"
        if is_layer(node) and (lost := self._lost(node)):
            return lost
        return self._of_batch_norm(node) if node.target in BATCH_NORMS else None

    def _lost(self, node: fx.Node) -> str | None:
        """Whether a layer's weights vanish in 16 bits, in a channel that counts."""
        weight_O = constant(self.graph, node.args[1]).flatten(1)  # type: ignore[arg-type]
        energy_O = weight_O.square().sum(1)
        lost_O = (weight_O - self.format.rounded(weight_O)).square().sum(1)
        bad_O = (lost_O > (_UNITS * self.format.unit) ** 2 * energy_O) & (energy_O > _LITTLE * energy_O.max())
        if not bad_O.any():
            return None
        largest = float(weight_O[bad_O].abs().max())
        return f"weights of {int(bad_O.sum())} of its channels, at most {largest:.1e}, vanish in {self.format.word}"

    def _of_batch_norm(self, node: fx.Node) -> str | None:
        given: Any = node.args
        variance = constant(self.graph, given[4])
        eps = next((each for each in reversed(given[5:]) if isinstance(each, float)), 0.0)
        least, most = float(variance.min()) + eps, float(variance.max())
        if least < HEADROOM * self.format.smallest:
            return f"it divides by the root of {least:.1e}"
        return f"its variance reaches {most:.1e}" if most > self.format.largest else None

    def _seen(self, node: fx.Node) -> Seen:
        return self.seen.get(node.name, Seen())


def not_finite(graph: fx.GraphModule, seen: Mapping[str, Seen]) -> str | None:
    """The first operation whose values are not finite in 32 bits; None if all are."""
    for node in graph.graph.nodes:
        if node.name in seen and not torch.isfinite(torch.tensor(seen[node.name].largest)):
            return place_of(node)
    return None


def in_32_bits_anyway(graph: fx.GraphModule) -> Iterator[str]:
    """Operations that are computed once, as they do not depend on the image, or give 32 bits whatever they read: told
    to, or because nothing that they read is in floating point (`torch.where(x > 0, 1.0, -1.0)`).
    """
    image = on_the_image(graph)
    for node in graph.graph.nodes:
        told = torch.float32 in (*node.args, *node.kwargs.values())
        own = not any(map(is_floating, node.all_input_nodes))
        if node.op == "call_function" and (node not in image or told or own):
            yield node.name


def place_of(node: fx.Node) -> str:
    """What a user knows an operation by: the path of the module that it is in, or its node's name."""
    if is_layer(node):
        return layer_name(node)
    if stored(node) or node.op == "placeholder":
        return str(node.target)
    modules = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
    kind = getattr(getattr(node.target, "_schema", None), "name", str(node.name)).partition("::")[2] or node.name
    return f"{modules[-1]} ({kind})" if modules else node.name
