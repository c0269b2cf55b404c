"""Post-training 8-bit quantization: fold batch norms, calibrate ranges on real cases, keep what must stay float.

Per-channel symmetric weights and per-tensor activations (Krishnamoorthi 2018, arXiv 1806.08342;
Nagel et al. 2021, arXiv 2106.08295). Where the Quantize-Dequantize pairs go is each runtime's own
matter and is decided when its file is written (export/quantization/rules.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from compress.data.dataset.cases import Role
from compress.editing.mixed_precision import not_coarser, with_exact
from compress.editing.named_layers import check_keep
from compress.editing.precisions.choice import Wanted, chosen
from compress.errors import PassError
from compress.progress import bar
from export.capture import folded_graph
from export.modules import IN_WORDS, Precision, precision_of
from export.quantization.observers import Histograms, MinMax, observe
from export.quantization.placement import candidates
from export.quantization.quantized import Quantized
from export.quantization.range_estimators import Percentile, RangeEstimator, least_divergence, least_squared_error
from export.quantization.scales import Range
from export.reach import word_of
from export.registry import words

if TYPE_CHECKING:
    from compress.task import Task

Method = Literal["min_max", "percentile", "entropy", "mse"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Int8:
    """Ranges for 8-bit integers, from real calibration cases."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "integers"

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
    """How much Dice may fall on the validation cases: for each runtime those layers go back to float with which this
    holds at the lowest latency (docs/int8.md). None leaves all in integers, whatever it costs."""
    when: Literal["always", "faster"] = "always"
    """Where integers are used: wherever `max_drop` allows it, or only where they make a layer faster on its runtime."""
    device: str = "cpu"
    """Whose runtimes latencies are measured on; others are weighed by their multiply-accumulates."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of each runtime there; None takes every CPU this process may use."""

    def __post_init__(self) -> None:
        if word_of(self.device) not in words("export.devices"):
            raise ValueError(f"there is no device '{self.device}'; there are {', '.join(words('export.devices'))}")

    @property
    def faster(self) -> bool:
        return self.when == "faster"

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",) if self.max_drop is None else ("calibration", "val")

    @property
    def estimator(self) -> RangeEstimator | None:
        """How ranges are estimated from histograms; None where the smallest and the largest value are the range."""
        estimators: dict[Method, RangeEstimator] = {
            "percentile": Percentile(percent=self.percentile),
            "entropy": least_divergence,
            "mse": least_squared_error,
        }
        return estimators.get(self.method)

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """A `Quantized` network: the same weights, batch norms folded, and a range for every activation.

        Raises:
            PassError: if there are too few calibration cases, `keep` names no layer, or the
                network is quantized already.
        """
        if (precision := precision_of(net)) != "float":
            raise PassError(f"int8: the network is in {IN_WORDS[precision]} already; give int8 once, as the last pass")
        cases = self._cases(task)
        graph = folded_graph(net, task.example, task.dynamic)
        ranges = calibrated(
            graph, lambda: (torch.from_numpy(image) for image in task.data.images(cases)), self, len(cases)
        )
        quantized = Quantized(graph, ranges, self.keep)
        check_keep(self.keep, [*quantized.layer_names(), *quantized.operator_names()], "int8")
        if self.max_drop is not None or self.faster:
            quantized = chosen(
                quantized,
                task,
                Wanted(max_drop=self.max_drop, faster=self.faster, device=self.device, threads=self.threads),
            )
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
                "assigned": {runtime: dict(chosen) for runtime, chosen in quantized.assigned.items()},
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

    Images are streamed, twice where a histogram is needed (first its range, then its counts), so
    memory does not grow with the number of cases.
    """
    extremes = MinMax()
    observe(graph, candidates(graph), extremes, bar(images(), "calibrating", count))
    for name, extreme in extremes.ranges.items():
        if not np.isfinite(extreme).all():
            raise PassError(f"int8: the activation {name} is not finite on the calibration cases; check the weights")
    estimator = how.estimator
    if estimator is None:
        return extremes.ranges
    histograms = Histograms(extremes.ranges)
    observe(graph, set(extremes.ranges), histograms, bar(images(), "calibrating", count))
    return {
        # Nothing was counted where all values are one.
        name: estimator(histogram) if histogram.counts.any() else histogram.range
        for name, histogram in histograms.of.items()
    }
