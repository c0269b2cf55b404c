"""Post-training 8-bit quantization: fold batch norms, calibrate ranges on real cases, keep what must stay float.

Per-channel symmetric weights and per-tensor activations (Krishnamoorthi 2018, arXiv 1806.08342;
Nagel et al. 2021, arXiv 2106.08295). Where the Quantize-Dequantize pairs go is each runtime's own
matter and is decided when its file is written (export/quantization/rules.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from compress.data.dataset.cases import Role
from compress.editing import calibration
from compress.editing.integers.effort import Effort, Ladder
from compress.editing.integers.finish import finished
from compress.editing.integers.training import LearnSteps, trained
from compress.editing.named_layers import check_keep
from compress.errors import PassError
from export.capture import folded_graph
from export.graph import convolutions, layer_name
from export.modules import Precision, precision_of
from export.quantization.range_estimators import Percentile, RangeEstimator, least_divergence, least_squared_error
from export.quantization.scales import Range

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
    """How much Dice may fall on the validation cases (integers simulated in torch as ONNX Runtime and OpenVINO place
    them): as many layers go back to float as that needs, those first that disturb the logits most. None leaves all
    in integers, whatever it costs."""

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
        if precision_of(net) == "integers":
            raise PassError("int8: the network is in 8-bit integers already; give int8 once, as the last pass")
        cases = self._cases(task)
        graph = folded_graph(net, task.example, task.dynamic)
        check_keep(self.keep, [layer_name(node) for node in convolutions(graph)], "int8")
        ladder = Ladder(word="int8", graph=graph, task=task, cases=cases, estimator=self.estimator, keep=self.keep)
        if self.train is None:
            quantized = ladder.climbed(self.effort)
        else:
            # Where channels differ too much, no gradient brings them back: they are brought to like widths first.
            begun = ladder.climbed("best", rounds=self.effort == "best")
            quantized = trained("int8", self.train, begun, task, ladder.bits)
        return finished(quantized, net, task, self.max_drop, "int8")

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


def calibrated(
    graph: fx.GraphModule, images: Callable[[], Iterable[Tensor]], how: Int8, count: int
) -> dict[str, Range]:
    """The range of every activation that some runtime may quantize (see compress/editing/calibration.py)."""
    return calibration.calibrated(graph, images(), how.estimator, count)
