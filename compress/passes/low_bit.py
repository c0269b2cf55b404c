"""Weights of 4 or 2 bits, activations of 8: a file of half or a quarter of int8's size, at int8's speed.

The runtimes of CPUs expand the weights to int8 when they open the file, and run their int8 kernels (export/packed.py).
The nearest points of so coarse a grid lose much: channels are brought to like widths, each weight's rounding is learnt
block by block (Nagel et al. 2020, arXiv 2004.10568; Li et al. 2021, arXiv 2102.05426), and training with the rounding
in the loop (Esser et al. 2020, arXiv 1902.08153) gives back what is left; 2 bits need it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import fx, nn

from compress.data.dataset.cases import Role
from compress.editing.activations import calibration_cases
from compress.editing.integers.effort import Ladder
from compress.editing.integers.finish import finished
from compress.editing.integers.training import LearnSteps, trained
from compress.editing.named_layers import check_keep
from compress.errors import PassError
from export.capture import folded_graph
from export.graph import CONVS, convolutions, fused_end, groups_of, layer_name, weight_of
from export.modules import IN_WORDS, Precision, precision_of
from export.quantization.carriers import source_of
from export.quantization.learnt import Grid
from export.quantization.range_estimators import least_squared_error
from export.quantization.saturation import depthwise
from export.quantization.weight_grids import integer_layers

if TYPE_CHECKING:
    from compress.task import Task


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LowBit:
    """Weights of few bits; those of the first layer, of the logits and of depthwise convolutions keep 8."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "integers"

    bits: Literal[4, 2] = 4
    """Of each weight."""
    calibrate: Annotated[int, Field(ge=1)] | None = None
    """How many calibration cases to use; None uses all that the data sets aside."""
    keep: tuple[str, ...] = ()
    """Layers that stay in float: names (`head`), modules (`decoder.3`) or patterns (`encoder.*.0`)."""
    steps: Annotated[int, Field(ge=1)] = 300
    """Of gradient descent, in which each block of layers learns how its weights are rounded."""
    train: LearnSteps | None = None
    """Train weights, biases and the steps of their grids on the train cases, the uncompressed network as teacher."""

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",) if self.train is None else ("calibration", "train", "val")

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """A `Quantized` network whose weights lie on grids of few codes.

        Raises:
            PassError: if there are too few calibration cases, `keep` names no layer, no layer is left for few bits, or
                the network is quantized already.
        """
        if (precision := precision_of(net)) != "float":
            raise PassError(
                f"low_bit: the network is in {IN_WORDS[precision]} already; give low_bit in the place of int8 or half"
            )
        cases = calibration_cases(task, self.calibrate, "low_bit")
        graph = folded_graph(net, task.example, task.dynamic)
        check_keep(self.keep, [layer_name(node) for node in convolutions(graph)], "low_bit")
        wide = _wide(graph)
        if not any(layer_name(node) not in wide for node in integer_layers(graph, self.keep)):
            raise PassError(f"low_bit: no layer is left whose weights could have {self.bits} bits; name fewer in keep")
        ladder = Ladder(
            word="low_bit",
            graph=graph,
            task=task,
            cases=cases,
            estimator=least_squared_error,
            keep=self.keep,
            bits=lambda name: 8 if name in wide else self.bits,
            steps=self.steps,
        )
        quantized = ladder.climbed("best")
        if self.train is not None:
            quantized = trained("low_bit", self.train, quantized, task, ladder.bits)
        task.note(_told(quantized.learnt.grids.values(), self.bits, wide))
        return finished(quantized, net, task, None, "low_bit")


def _wide(graph: fx.GraphModule) -> set[str]:
    """The layers whose weights keep 8 bits: few, and what they lose nothing behind them can give back."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    return {
        layer_name(node)
        for node in convolutions(graph)
        if source_of(node.args[0]).op == "placeholder"
        or fused_end(node) in output.all_input_nodes
        or depthwise(node.target in CONVS, weight_of(graph, node).shape, groups_of(node))
    }


def _told(grids: Iterable[Grid], bits: int, wide: Collection[str]) -> str:
    few = sum(grid.bits == bits for grid in grids)
    return (
        f"low_bit: the weights of {few} layers have {bits} bits; those of the first layer, of the logits and of "
        f"depthwise convolutions keep 8 ({len(wide)} layers)"
    )
