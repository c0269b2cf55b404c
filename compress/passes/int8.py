"""Post-training 8-bit quantization: fold batch norms, calibrate ranges on real cases, keep what must stay float.

Per-channel symmetric weights and per-tensor activations (Krishnamoorthi 2018, arXiv 1806.08342;
Nagel et al. 2021, arXiv 2106.08295). Where the Quantize-Dequantize pairs go is each runtime's own
matter and is decided when its file is written (export/quantization/rules.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from compress.data.dataset.cases import Role
from compress.editing.mixed_precision import in_float, not_coarser, with_exact, with_float
from compress.editing.named_layers import check_keep
from compress.errors import PassError
from compress.progress import bar
from export.capture import folded_graph
from export.quantization.placement import candidates
from export.quantization.quantized import Quantized
from export.quantization.scales import Range

if TYPE_CHECKING:
    from compress.task import Task

Method = Literal["min_max", "percentile", "entropy", "mse"]
Histogram = NDArray[np.float64]
BINS = 2048


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Int8:
    """Ranges for 8-bit integers, from real calibration cases."""

    calibrate: Annotated[int, Field(ge=1)] | None = None
    """How many calibration cases to use; None uses all that the data sets aside."""
    method: Method = "mse"
    """How a range is taken from what was seen: all of it, `percentile` of it, the range that keeps the
    most information (Kullback-Leibler; Migacz 2017), or the one with the least squared error."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Share of values, in percent, that a `percentile` range covers."""
    keep: tuple[str, ...] = ()
    """Layers that stay in float: names (`head`), modules (`decoder.3`) or patterns (`encoder.*.0`)."""

    max_drop: Annotated[float, Field(gt=0, lt=1)] | None = None
    """How much Dice may fall on the validation cases (integers simulated in torch as ONNX Runtime and OpenVINO place
    them): as many layers go back to float as that needs, those first that disturb the logits most. None leaves all
    in integers, whatever it costs."""

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",) if self.max_drop is None else ("calibration", "val")

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """A `Quantized` network: the same weights, batch norms folded, and a range for every activation.

        Raises:
            PassError: if there are too few calibration cases, `keep` names no layer, or the
                network is quantized already.
        """
        if isinstance(net, Quantized):
            raise PassError("int8: the network is in 8-bit integers already; give int8 once, as the last pass")
        cases = self._cases(task)
        graph = folded_graph(net, task.example, task.dynamic)
        ranges = calibrated(
            graph, lambda: (torch.from_numpy(image) for image in task.data.images(cases)), self, len(cases)
        )
        quantized = Quantized(graph, ranges, self.keep)
        check_keep(self.keep, quantized.layer_names(), "int8")
        if self.max_drop is not None:
            quantized = with_float(quantized, in_float(quantized, task, self.max_drop))
        quantized = with_exact(quantized, not_coarser(quantized, task))
        for line in _about_concatenations(quantized):
            task.note(line)
        quantized.description = {
            "int8": {
                "net": net.description,
                "input": list(task.example.shape),
                "dynamic": list(task.dynamic),
                "keep_float": list(quantized.keep_float),
                "exact": list(quantized.exact),
                "ranges": list(ranges),
            }
        }
        return quantized

    def _cases(self, task: Task) -> Sequence[Any]:
        available = task.data.cases["calibration"]
        if not available:
            raise PassError(
                "int8: there are no calibration cases; set data calibration above 0 (train cases set aside) "
                "or give cases the split 'calibration' in split.csv"
            )
        if self.calibrate is not None and self.calibrate > len(available):
            raise PassError(
                f"int8: calibrate is {self.calibrate}, but the data sets only {len(available)} cases aside; "
                "lower it or raise data calibration"
            )
        return available[: self.calibrate]


def _about_concatenations(quantized: Quantized) -> Iterator[str]:
    """What is done about inputs of concatenations that would keep too few levels beside wider ones."""
    for stretched, done in (
        (True, "stretched, exactly and at no cost, with the weights that read them"),
        (
            False,
            "not stretched, because more than convolutions reads them: OpenVINO gets a scale of their own for them",
        ),
    ):
        found = [each for each in quantized.narrow() if each.stretched == stretched]
        if found:
            fewest = min(found, key=lambda each: each.levels)
            yield (
                f"int8: {len(found)} inputs of concatenations are much narrower than what they are joined with "
                f"({fewest.name} would keep {fewest.levels:.0f} of 255 levels); they are {done}"
            )


def calibrated(
    graph: fx.GraphModule, images: Callable[[], Iterable[Tensor]], how: Int8, count: int
) -> dict[str, Range]:
    """The range of every activation that some runtime may quantize.

    Images are streamed, twice where a histogram is needed (first its edges, then its counts), so
    memory does not grow with the number of cases.
    """
    names = candidates(graph)
    edges = _edges(graph, names, bar(images(), "calibrating", count))
    for name, (low, high) in edges.items():
        if not np.isfinite([low, high]).all():
            raise PassError(f"int8: the activation {name} is not finite on the calibration cases; check the weights")
    if how.method == "min_max":
        return edges
    counts = _counts(graph, edges, bar(images(), "calibrating", count))
    return {name: _clipped(counts[name], edges[name], how) for name in edges}


class _Watch(fx.Interpreter):
    """Runs a graph and shows each named activation to `see`."""

    def __init__(self, graph: fx.GraphModule, names: set[str], see: Callable[[str, Tensor], None]) -> None:
        super().__init__(graph)
        self.watched, self.see = names, see

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.watched:
            self.see(n.name, value)
        return value


@torch.inference_mode()
def _edges(graph: fx.GraphModule, names: set[str], images: Iterable[Tensor]) -> dict[str, Range]:
    edges: dict[str, Range] = {}

    def see(name: str, value: Tensor) -> None:
        low, high = (edge.item() for edge in torch.aminmax(value))
        before = edges.get(name, (low, high))
        # min() and max() would drop a NaN that comes second.
        edges[name] = (float(np.minimum(low, before[0])), float(np.maximum(high, before[1])))

    watch = _Watch(graph, names, see)
    for image in images:
        watch.run(image)
    return edges


@torch.inference_mode()
def _counts(graph: fx.GraphModule, edges: Mapping[str, Range], images: Iterable[Tensor]) -> dict[str, Histogram]:
    counts = {name: np.zeros(BINS) for name in edges}

    def see(name: str, value: Tensor) -> None:
        low, high = edges[name]
        if high > low:
            counts[name] += torch.histc(value.float(), BINS, low, high).numpy()

    watch = _Watch(graph, set(edges), see)
    for image in images:
        watch.run(image)
    return counts


def _clipped(counts: Histogram, edges: Range, how: Int8) -> Range:
    if counts.sum() == 0:
        return edges
    centres = edges[0] + (np.arange(BINS) + 0.5) * (edges[1] - edges[0]) / BINS
    if how.method == "percentile":
        return _percentile(counts, centres, edges, how.percentile)
    if how.method == "entropy":
        return _least_divergence(counts, centres, edges)
    return _least_error(counts, centres, edges)


def _percentile(counts: Histogram, centres: Histogram, edges: Range, percent: float) -> Range:
    """The range with `percent` of the values: half of the rest above, half below; all above if nothing is negative."""
    share = np.cumsum(counts) / counts.sum()
    outside = 1 - percent / 100
    one_sided = edges[0] >= 0
    low = edges[0] if one_sided else centres[np.searchsorted(share, outside / 2)]
    top = int(np.searchsorted(share, 1 - (outside if one_sided else outside / 2)))
    return float(low), float(min(centres[min(top, BINS - 1)] + (centres[1] - centres[0]) / 2, edges[1]))


def _least_error(counts: Histogram, centres: Histogram, edges: Range) -> Range:
    """The range whose 256 levels have the least squared error: one end is moved in, then the other."""

    def error(low: float, high: float) -> float:
        step = max(high - low, 1e-12) / 255
        # Values inside lose up to half a step evenly; those outside, their distance to the end.
        outside = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
        inside = outside == 0
        return float((counts * np.where(inside, step**2 / 12, outside**2)).sum())

    low, high = min(edges[0], 0.0), max(edges[1], 0.0)
    shares = np.linspace(1.0, 0.1, 181)
    for _ in range(2):
        high = min((share * max(edges[1], 0.0) for share in shares), key=lambda end: error(low, end))
        low = min((share * min(edges[0], 0.0) for share in shares), key=lambda end: error(end, high))
    return float(low), float(high)


def _least_divergence(counts: Histogram, centres: Histogram, edges: Range) -> Range:
    """The range whose levels keep the most information, by the Kullback-Leibler divergence.

    Migacz, "8-bit Inference with TensorRT", GTC 2017: for each threshold, the clipped distribution
    is compared with itself after rounding to the integer levels. Both signs share one threshold.
    """
    levels = 256 if edges[0] >= 0 else 128
    size = np.histogram(np.abs(centres), bins=BINS, range=(0, max(-edges[0], edges[1])), weights=counts)[0]
    # The zeros that a ReLU makes say nothing about the threshold, and outnumber everything else.
    size[0] = size[1]
    best = min(range(levels, BINS + 1, 8), key=lambda bins: _divergence(size, bins, levels))
    threshold = best / BINS * max(-edges[0], edges[1])
    return float(max(edges[0], -threshold)), float(min(edges[1], threshold))


def _divergence(size: Histogram, bins: int, levels: int) -> float:
    kept = size[:bins].copy()
    clipped = kept.copy()
    clipped[-1] += size[bins:].sum()
    level = np.arange(bins) * levels // bins
    filled = kept > 0
    total = np.bincount(level, weights=kept, minlength=levels)
    members = np.bincount(level, weights=filled, minlength=levels)
    rounded = np.where(filled, (total / np.maximum(members, 1))[level], 0)
    if clipped.sum() == 0 or rounded.sum() == 0:
        return np.inf
    p, q = clipped / clipped.sum(), rounded / rounded.sum()
    both = p > 0
    # Where rounding left nothing (only the clipped mass in the last bin), a small share stands in.
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-9))).sum())
