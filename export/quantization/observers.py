"""What activations take on calibration images: their smallest and largest values, and how often each one between.

An observer is shown every activation that some runtime may quantize; images are streamed, once, so that memory does not
grow with their number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from export.quantization.scales import Range

BINS = 4096
"""As many equal parts of a range, and zero, are counted at most, and more than half as many at least."""
SAMPLES = 2**16
"""As many values of an activation are counted in each case; of larger ones an even sample."""
_FINEST = -1000
"""The width of a bin where all was zero so far, as a power of two."""

Counts = NDArray[np.float64]


class Observer(Protocol):
    """Is shown an activation, by its name, for every image."""

    def __call__(self, name: str, activation: Tensor) -> None: ...


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """The smallest and the largest value of every activation."""

    ranges: dict[str, Range] = field(default_factory=dict)

    def __call__(self, name: str, activation: Tensor) -> None:
        low, high = (edge.item() for edge in torch.aminmax(_flat(activation)))
        before = self.ranges.get(name, (low, high))
        # min() and max() would drop a NaN that comes second.
        self.ranges[name] = (float(np.minimum(low, before[0])), float(np.maximum(high, before[1])))


@dataclass(kw_only=True)
class Histogram:
    """How many values of one activation lie in each of up to `BINS` equal parts of its range.

    A part is a power of two wide and begins at a multiple of that. Where the range grows, neighbours are therefore
    added up, and every count is what it would be had the range been known from the start (PyTorch's HistogramObserver
    interpolates instead).
    """

    range: Range = (0.0, 0.0)
    exponent: int = _FINEST
    first: int = 0
    """Of the first part, which multiple of its width it begins at."""
    counts: Counts = field(default_factory=lambda: np.zeros(1))

    @property
    def width(self) -> float:
        """Of every part."""
        return 2.0**self.exponent

    @property
    def centres(self) -> Counts:
        """The middle of every part."""
        places = np.arange(len(self.counts), dtype=np.float64)
        return np.asarray((places + (self.first + 0.5)) * self.width, np.float64)

    @property
    def sizes(self) -> Counts:
        """How many values have an absolute value in each part from zero on."""
        below, above = self.counts[: -self.first][::-1] if self.first < 0 else np.zeros(0), self.counts[-self.first :]
        longer, shorter = (above, below) if len(above) >= len(below) else (below, above)
        return np.concatenate([longer[: len(shorter)] + shorter, longer[len(shorter) :]])

    def count(self, values: Counts, span: Range) -> None:
        """Count values, after making room for a range that they lie in."""
        self._cover(span)
        places = np.floor(values * 2.0**-self.exponent).astype(np.int64) - self.first
        self.counts += np.bincount(places, minlength=len(self.counts))

    def _cover(self, span: Range) -> None:
        # Integers have zero on their grid, whatever the range.
        ends = (
            min(span[0], self.first * self.width, 0.0),
            max(span[1], (self.first + len(self.counts) - 1) * self.width),
        )
        exponent = max(self.exponent, _finest_exponent(ends))
        first = math.floor(ends[0] * 2.0**-exponent)
        counts = np.zeros(math.floor(ends[1] * 2.0**-exponent) - first + 1)
        # A shift of a negative number rounds down, as it must.
        places = np.right_shift(self.first + np.arange(len(self.counts)), min(exponent - self.exponent, 62)) - first
        np.add.at(counts, places, self.counts)
        self.exponent, self.first, self.counts = exponent, first, counts


def _finest_exponent(span: Range) -> int:
    """The finest parts, as a power of two, of which `BINS` are enough for a range."""
    low, high = span
    if high <= low:
        return _FINEST
    exponent = max(math.ceil(math.log2((high - low) / BINS)), _FINEST)
    while math.floor(high * 2.0**-exponent) - math.floor(low * 2.0**-exponent) >= BINS:
        exponent += 1
    return exponent


class Histograms:
    """The histogram of every activation, in one pass over the images."""

    def __init__(self) -> None:
        self.extremes = MinMax()
        self.of: dict[str, Histogram] = {}

    @property
    def ranges(self) -> dict[str, Range]:
        """The smallest and the largest value of every activation."""
        return self.extremes.ranges

    def __call__(self, name: str, activation: Tensor) -> None:
        self.extremes(name, activation)
        span = self.extremes.ranges[name]
        if np.isfinite(span).all():
            histogram = self.of.setdefault(name, Histogram())
            histogram.count(sample(activation).numpy(), span)
            histogram.range = span


class Channels:
    """Of every channel of the activations that are asked for, the mean over some cases and the largest size over all.

    Args:
        names: of the activations.
        cases: how many, from the first on, the mean is taken of.
    """

    def __init__(self, names: Collection[str], cases: int) -> None:
        self.names, self.most = names, cases
        self.sums: dict[str, Tensor] = {}
        self.sizes: dict[str, Tensor] = {}
        self.cases: dict[str, int] = {}

    def __call__(self, name: str, activation: Tensor) -> None:
        if name not in self.names:
            return
        others = [axis for axis in range(activation.dim()) if axis != 1]
        size_C = torch.maximum(activation.amax(others), -activation.amin(others))
        self.sizes[name] = torch.maximum(self.sizes[name], size_C) if name in self.sizes else size_C
        if self.cases.get(name, 0) < self.most:
            self.sums[name] = self.sums.get(name, 0.0) + activation.mean(others).double()
            self.cases[name] = self.cases.get(name, 0) + 1

    @property
    def means(self) -> dict[str, Tensor]:
        """By the name of the activation, the mean of each of its channels (float64)."""
        return {name: sums / self.cases[name] for name, sums in self.sums.items()}


def sample(activation: Tensor) -> Tensor:
    """At most `SAMPLES` values of a tensor, evenly from all of it, as float64."""
    count = activation.numel()
    step = max(1, -(-count // SAMPLES))
    while math.gcd(step, count) > 1:
        # A step that divides a side would see a few columns of the image, again and again.
        step += 1
    return _flat(activation)[::step].double()


def _flat(activation: Tensor) -> Tensor:
    """All values in the order in which they lie in memory, whatever that is: so nothing is copied."""
    strides = activation.stride()
    return activation.permute(sorted(range(activation.dim()), key=lambda axis: -strides[axis])).reshape(-1)


@torch.inference_mode()
def observe(graph: fx.GraphModule, names: set[str], observer: Observer, images: Iterable[Tensor]) -> None:
    """Run the graph on every image (1C..) and show the activations of these names to the observer."""
    free = layout_is_free(graph)
    if free:
        graph = copy.deepcopy(graph)
        for parameter in graph.parameters():
            # oneDNN's convolutions are up to a third faster so, since no image is put into another order.
            parameter.data = _channels_last(parameter)
    observed = _Observed(graph, names, observer)
    for image in images:
        observed.run(_channels_last(image) if free else image)


def layout_is_free(graph: fx.GraphModule) -> bool:
    """Whether tensors may lie in another order than where the graph was captured (`view` must then be `reshape`)."""
    return all(str(node.target) not in _BY_MEMORY for node in graph.graph.nodes)


_BY_MEMORY = ("aten.as_strided.default", "aten.view.dtype", "aten.view_as_complex.default", "aten.view_as_real.default")
"""Operations that mean other values where these lie in another order."""


def _channels_last(tensor: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.detach().contiguous(memory_format=formats.get(tensor.dim(), torch.contiguous_format))


class _Observed(fx.Interpreter):
    """Runs a graph and shows each named activation to an observer."""

    def __init__(self, graph: fx.GraphModule, names: set[str], observer: Observer) -> None:
        super().__init__(graph)
        self.names, self.observer = names, observer

    def run_node(self, n: fx.Node) -> Any:
        if n.target is torch.ops.aten.view.default:
            # Captured where every tensor lay in its own order.
            args, _ = self.fetch_args_kwargs_from_env(n)
            value = args[0].reshape(args[1])
        else:
            value = super().run_node(n)
        if n.name in self.names:
            self.observer(n.name, value)
        return value
