"""What activations take on calibration images: their smallest and largest values, and how often each one between.

An observer is shown every activation that some runtime may quantize; images are streamed, so that memory does not grow
with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from export.quantization.scales import Range

BINS = 2048

Counts = NDArray[np.float64]


class Observer(Protocol):
    """Is shown an activation, by its name, for every image."""

    def __call__(self, name: str, activation: Tensor) -> None: ...


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """The smallest and the largest value of every activation."""

    ranges: dict[str, Range] = field(default_factory=dict)

    def __call__(self, name: str, activation: Tensor) -> None:
        low, high = (edge.item() for edge in torch.aminmax(activation))
        before = self.ranges.get(name, (low, high))
        # min() and max() would drop a NaN that comes second.
        self.ranges[name] = (float(np.minimum(low, before[0])), float(np.maximum(high, before[1])))


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many values of one activation lie in each of `BINS` equal parts of its range."""

    range: Range
    counts: Counts = field(default_factory=lambda: np.zeros(BINS))

    @property
    def centres(self) -> Counts:
        """The middle of every bin."""
        low, high = self.range
        return low + (np.arange(BINS) + 0.5) * (high - low) / BINS


class Histograms:
    """The histogram of every activation, over ranges that are known."""

    def __init__(self, ranges: Mapping[str, Range]) -> None:
        self.of = {name: Histogram(range=each) for name, each in ranges.items()}

    def __call__(self, name: str, activation: Tensor) -> None:
        low, high = self.of[name].range
        if high > low:
            self.of[name].counts[:] += torch.histc(activation.float(), BINS, low, high).numpy()


@torch.inference_mode()
def observe(graph: fx.GraphModule, names: set[str], observer: Observer, images: Iterable[Tensor]) -> None:
    """Run the graph on every image (1CHW) and show the activations of these names to the observer."""
    observed = _Observed(graph, names, observer)
    for image in images:
        observed.run(image)


class _Observed(fx.Interpreter):
    """Runs a graph and shows each named activation to an observer."""

    def __init__(self, graph: fx.GraphModule, names: set[str], observer: Observer) -> None:
        super().__init__(graph)
        self.names, self.observer = names, observer

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.observer(n.name, value)
        return value
