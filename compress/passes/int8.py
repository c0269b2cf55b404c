"""Post-training 8-bit quantization: fold batch norms, calibrate ranges on real cases, keep what must stay float.

Per-channel symmetric weights and per-tensor activations (Krishnamoorthi 2018, arXiv 1806.08342;
Nagel et al. 2021, arXiv 2106.08295). Where the Quantize-Dequantize pairs go is each runtime's own
matter and is decided when its file is written (export/quantization/rules.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.data.dataset.cases import Role
from compress.editing.activations import calibration_cases
from compress.editing.integers.effort import Effort, Ladder
from compress.editing.integers.finish import finished
from compress.editing.integers.training import LearnSteps, trained
from compress.editing.named_layers import check_keep
from compress.editing.precisions.choice import Wanted
from compress.errors import PassError
from export.capture import folded_graph
from export.graph import convolutions, layer_name
from export.modules import IN_WORDS, Precision, precision_of
from export.quantization.placement import operator_name, operators
from export.quantization.range_estimators import Percentile, RangeEstimator, least_divergence, least_squared_error
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
    effort: Effort = "normal"
    """`fast` takes ranges from the smallest and largest values; `normal` from histograms, and corrects biases; `best`
    also brings channels to like widths and learns which way each weight is rounded, block by block (some minutes). What
    does not lower the error on calibration cases held back is left out."""
    method: Method | None = None
    """How a range is taken from what was seen: all of it, `percentile` of it, the range that keeps the
    most information (Kullback-Leibler; Migacz 2017), or the one with the least squared error;
    None: `min_max` under `effort: fast`, else `mse`."""
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

    train: LearnSteps | None = None
    """Train weights, biases and the steps of their grids on the train cases, the uncompressed network as teacher."""

    @property
    def uses(self) -> tuple[Role, ...]:
        if self.train is not None:
            return ("calibration", "train", "val")
        return ("calibration",) if self.max_drop is None else ("calibration", "val")

    @property
    def estimator(self) -> RangeEstimator | None:
        """How ranges are estimated from histograms; None where the smallest and the largest value are the range."""
        estimators: dict[Method, RangeEstimator] = {
            "percentile": Percentile(percent=self.percentile),
            "entropy": least_divergence,
            "mse": least_squared_error,
        }
        return estimators.get(self.method or ("min_max" if self.effort == "fast" else "mse"))

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """A `Quantized` network: weights with batch norms folded, and a range for every activation.

        Raises:
            PassError: if there are too few calibration cases, `keep` names no layer, or the
                network is quantized already.
        """
        if (precision := precision_of(net)) != "float":
            raise PassError(f"int8: the network is in {IN_WORDS[precision]} already; give int8 once, as the last pass")
        cases = calibration_cases(task, self.calibrate, "int8")
        graph = folded_graph(net, task.example, task.dynamic)
        names = [*map(layer_name, convolutions(graph)), *map(operator_name, operators(graph))]
        check_keep(self.keep, names, "int8")
        ladder = Ladder(word="int8", graph=graph, task=task, cases=cases, estimator=self.estimator, keep=self.keep)
        if self.train is None:
            quantized = ladder.climbed(self.effort)
        else:
            # Where channels differ too much, no gradient brings them back: they are brought to like widths first.
            begun = ladder.climbed("best", rounds=self.effort == "best")
            quantized = trained("int8", self.train, begun, task, ladder.bits)
        wanted = Wanted(max_drop=self.max_drop, faster=self.faster, device=self.device, threads=self.threads)
        return finished(quantized, net, task, wanted, "int8")
