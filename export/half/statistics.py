"""What every tensor of a network is on real cases, and what operations add up inside, where no tensor shows it.

Legend: R rows (what one norm measures together), C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from export.graph import TRANSPOSED, aten, constant
from export.half.formats import Format
from export.half.operations import (
    MEANS,
    MOVES,
    NORMS,
    PRODUCTS,
    RUNNING,
    SOFTMAX,
    SQUARES,
    SUMS,
    is_floating,
    is_layer,
    near_zero,
    on_the_image,
)

ENOUGH = 256
"""A sum is looked at closely only where the widest it could be is within this of what a format holds."""
_EPS = 1e-5
"""What norms add to a variance where nothing else is said."""


@dataclass(kw_only=True)
class Seen:
    """One tensor over all cases, and the operation that makes it."""

    largest: float = 0.0
    """Its largest absolute value."""
    sums: float = 0.0
    """The largest partial sum inside the operation, in whatever order it adds up: the sum of absolute values."""
    terms: int = 0
    """How many values the operation adds up, where it is a reduction."""
    deviation: float = math.inf
    """The smallest variance, with what is added to it, that it divides by."""
    divisor: float = math.inf
    """The smallest absolute value that it divides by."""
    noise: float = 0.0
    """Sum of squares of what rounding to 16 bits changes."""
    shares: bool = False
    """Whether its values are shares of a whole, which are read with their mean (an attention that is all but even)."""
    energy: float = 0.0
    """Sum of its squares."""
    _count: int = 0
    _mean_C: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    _squares_C: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    @property
    def spread(self) -> Tensor:
        """Its standard deviation within each channel (C)."""
        return (self._squares_C / max(1, self._count)).sqrt()

    @property
    def error(self) -> float:
        """What rounding changes, over what varies in the tensor within its channels; 0 where nothing varies."""
        varies = self.energy if self.shares else float(self._squares_C.sum())
        # Float32 tells no more apart: what varies less is a constant.
        if varies <= 1e-10 * self.energy:
            return 0.0
        return math.sqrt(self.noise / varies)

    def add(self, x: Tensor, format: Format) -> None:
        """Take in a tensor of one case."""
        self.largest = max(self.largest, *(abs(float(edge)) for edge in torch.aminmax(x)))
        self.noise += float(torch.linalg.vector_norm(x - format.rounded(x))) ** 2
        axis = 1 if x.dim() > 3 else x.dim() - 1
        x_C = x.movedim(axis, 0).reshape(x.shape[axis], -1)
        count = x_C.shape[1]
        # Chan et al. 1983: variances of parts, put together without cancellation.
        mean_C = x_C.mean(1)
        squares_C = (x_C - mean_C[:, None]).square().sum(1)
        apart_C = mean_C.double() - self._mean_C
        whole = self._count + count
        self._squares_C = self._squares_C + squares_C.double() + apart_C**2 * self._count * count / whole
        self._mean_C = self._mean_C + apart_C * count / whole
        self._count = whole
        self.energy = float((self._squares_C + whole * self._mean_C**2).sum())


@torch.inference_mode()
def statistics(graph: fx.GraphModule, format: Format, images: Iterable[Tensor]) -> dict[str, Seen]:
    """What is seen of every operation in float32 that depends on the image, by the name of its node.

    Args:
        images: 1CHW or 1CDHW; streamed, so that memory does not grow with their number.
    """
    watching = _Watching(graph, format)
    for image in images:
        watching.run(image)
    return watching.seen


class _Watching(fx.Interpreter):
    """Runs a graph and looks at what every node computes."""

    def __init__(self, graph: fx.GraphModule, format: Format) -> None:
        super().__init__(graph)
        self.format = format
        self.seen: dict[str, Seen] = {}
        self._looked_at = {node for node in on_the_image(graph) if is_floating(node)}
        self._widest = {
            node: _widest(graph, node) for node in graph.graph.nodes if node.op == "call_function" and is_layer(node)
        }

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n not in self._looked_at or n.target in MOVES:
            return value
        first = value[0] if isinstance(value, list | tuple) else value
        if n.op != "output" and first.numel():
            seen = self.seen.setdefault(n.name, Seen())
            seen.add(first, self.format)
            if n.op == "call_function":
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                self._inside(n, seen, args, kwargs, first)
        return value

    def _inside(self, n: fx.Node, seen: Seen, args: Any, kwargs: Mapping[str, Any], value: Tensor) -> None:
        """What lies between the operation's inputs and its output."""
        for divisor in near_zero(n):
            seen.divisor = min(seen.divisor, float(self.env[divisor].abs().min()))
        if n.target in PRODUCTS:
            seen.sums = max(seen.sums, self._products(n, args, kwargs))
        elif n.target in (*NORMS, *SQUARES):
            _of_squares(n, seen, args, value)
        elif n.target in SUMS:
            seen.terms = max(seen.terms, _terms(n, args, value))
            wide = float(n.target(args[0].abs(), *args[1:], **kwargs).max())  # type: ignore[operator]
            seen.sums = max(seen.sums, wide * seen.terms if n.target in MEANS else wide)
        elif n.target in SOFTMAX:
            seen.shares = True
            seen.terms = max(seen.terms, _terms(n, args, value))

    def _products(self, n: fx.Node, args: Any, kwargs: Mapping[str, Any]) -> float:
        """The largest sum of absolute products; a bound of it where that is small already."""
        if self.format.largest > torch.finfo(torch.float32).max / ENOUGH:
            # What float32 can add up, it can.
            return 0.0
        if n in self._widest:
            bound = float(args[0].abs().max()) * self._widest[n]
            if bound * ENOUGH < self.format.largest:
                return bound
        if n.target in _ATTENTION:
            query, key = args[0].abs(), args[1].abs()
            return float((query @ key.transpose(-1, -2)).max()) / math.sqrt(query.shape[-1])
        wide = fx.node.map_aggregate((tuple(args), dict(kwargs)), _absolute)
        assert callable(n.target)
        return float(n.target(*wide[0], **wide[1]).abs().max())


_ATTENTION = frozenset({aten.scaled_dot_product_attention.default})


def _absolute(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) and value.is_floating_point() else value


def _widest(graph: fx.GraphModule, node: fx.Node) -> float:
    """The largest sum of a layer's absolute weights for one output: how much wider its sums are than its input."""
    weight_O = constant(graph, node.args[1]).abs()  # type: ignore[arg-type]
    if node.target in TRANSPOSED:
        return float(weight_O.sum().item() if weight_O.dim() < 2 else weight_O.transpose(0, 1).flatten(1).sum(1).max())
    return float(weight_O.flatten(1).sum(1).max())


def _of_squares(n: fx.Node, seen: Seen, args: Any, value: Tensor) -> None:
    """The squares that a norm adds up, how many they are, and the smallest variance that it divides by."""
    x = args[0]
    rows_R = x.reshape(_rows(n, args, value), -1)
    seen.terms = max(seen.terms, rows_R.shape[1])
    seen.sums = max(seen.sums, float(rows_R.square().sum(1).max()))
    if n.target in NORMS:
        eps = [each for each in args[1:] if isinstance(each, float) and 0 < each < 0.05]
        least = float(rows_R.var(1, correction=0).min()) + (eps[-1] if eps else _EPS)
        seen.deviation = min(seen.deviation, least)


def _rows(n: fx.Node, args: Any, value: Tensor) -> int:
    """How many groups of neighbouring values an operation measures, each by itself."""
    x, name = args[0], n.target._schema.name.partition("::")[2]  # type: ignore[union-attr]
    if name == "instance_norm":
        return int(x.shape[0] * x.shape[1])
    if name == "group_norm":
        return int(x.shape[0] * args[1])
    if name == "native_group_norm":
        return int(x.shape[0] * args[6])
    if name in ("layer_norm", "native_layer_norm", "rms_norm"):
        return int(x.numel() // math.prod(args[1]))
    # A reduction; that its axes may lie apart changes how values are grouped, and hardly the largest sum.
    return max(1, value.numel())


def _terms(n: fx.Node, args: Any, value: Tensor) -> int:
    """How many values of its input an operation puts into one of its output."""
    x = args[0]
    if n.target in SOFTMAX or n.target in RUNNING:
        return int(x.shape[args[1]]) if isinstance(args[1], int) else int(x.numel() // max(1, value.numel()))
    return int(x.numel() // max(1, value.numel()))
