"""How much is done for a network's integers, rung by rung; each stays only if cases held back are better for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, fx

from compress.editing.calibration import calibrated, told_images
from compress.editing.integers.equalization import equalized, joined
from compress.editing.integers.rounding import Rounding, rounded
from compress.editing.integers.simulated import Simulated
from compress.editing.mixed_precision import on_cpus
from export.graph import CONVS, TRANSPOSED, convolutions, layer_name, set_constant
from export.quantization.assignment import Assignment
from export.quantization.carriers import source_of
from export.quantization.learnt import Grid, Learnt, weight_path
from export.quantization.observers import Channels
from export.quantization.quantized import Quantized
from export.quantization.range_estimators import RangeEstimator
from export.quantization.weight_grids import integer_layers, weight_grids

if TYPE_CHECKING:
    from compress.data.dataset.cases import Case
    from compress.task import Task

Effort = Literal["fast", "normal", "best"]
HELD_BACK = 4
"""Cases on which rungs are judged, at most; a quarter of all."""
LEARNT_FROM = (8, 32)
"""Cases that rounding is learnt from, at least where there are as many, and at most."""
_PIXELS = 2**20
"""Of all these cases: what layers answered to them is held in memory."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """One network, what it is calibrated on, and how.

    Args:
        word: of the pass, for what is told.
        bits: of the weights of a layer, by its name.
    """

    word: str
    graph: fx.GraphModule
    task: Task
    cases: Sequence[Case]
    estimator: RangeEstimator | None
    keep: tuple[str, ...]
    bits: Callable[[str], int] = lambda _: 8
    steps: int = 150
    """Of gradient descent for each block of layers."""

    def climbed(self, effort: Effort, rounds: bool = True) -> Quantized:
        """The network in integers, every rung up to this one tried.

        Args:
            rounds: whether `best` learns how weights are rounded; not where they are trained afterwards.

        Raises:
            PassError: if nothing can be calibrated on the cases.
        """
        watched = [node for node in convolutions(self.graph) if node.target in (*CONVS, *TRANSPOSED)]
        names = {source_of(node.args[0]).name for node in watched} | joined(self.graph)
        channels = Channels(names, self._learn) if effort != "fast" else None
        found = self._quantized(self.graph, channels)
        if channels is None or not self._held:
            return found
        if effort == "best":
            found, channels = self._equalized(found, channels)
        means = Learnt(grids=found.learnt.grids, means=channels.means)
        found = self._better(found, found.changed(learnt=means), "biases corrected by what rounding adds on average")
        return self._rounded(found) if effort == "best" and rounds else found

    @property
    def _held(self) -> int:
        return min(HELD_BACK, len(self.cases) // 4)

    @property
    def _learn(self) -> int:
        return len(self.cases) - self._held

    @cached_property
    def held_back(self) -> list[Tensor]:
        """Images that nothing but ranges was taken from."""
        return [torch.from_numpy(image) for image in self.task.data.images(self.cases[self._learn :])]

    def _quantized(self, graph: fx.GraphModule, channels: Channels | None) -> Quantized:
        ranges = calibrated(
            graph, told_images(self.task, self.cases, self.word), self.estimator, len(self.cases), channels, self.word
        )
        assignment = Assignment(word=self.word, keep_float=self.keep)
        return Quantized(graph, ranges, assignment, self._nearest(graph, ranges)).eval()

    def _nearest(self, graph: fx.GraphModule, ranges: Mapping[str, tuple[float, float]]) -> Learnt:
        """Grids of fewer than 8 bits; those of 8 are each runtime's own."""
        few = [node for node in integer_layers(graph, self.keep) if self.bits(layer_name(node)) < 8]
        return Learnt(grids=weight_grids(graph, few, ranges, self.bits, on_cpus()[0]))

    def _equalized(self, before: Quantized, channels: Channels) -> tuple[Quantized, Channels]:
        graph, count = equalized(self.graph, channels.sizes)
        if not count:
            self.task.note(f"{self.word}: no channels are brought to like widths: no convolution reads another's alone")
            return before, channels
        again = Channels(channels.names, self._learn)
        after = self._quantized(graph, again)
        kept = self._better(before, after, f"channels brought to like widths behind {count} layers")
        return kept, again if kept is after else channels

    def _rounded(self, before: Quantized) -> Quantized:
        rules = on_cpus()[0]
        layers = integer_layers(before.graph, self.keep)
        grids = weight_grids(before.graph, layers, before.spans(), self.bits, rules)
        simulated = Simulated(before.graph, layers, before.spans(), rules)
        least, most = LEARNT_FROM
        count = min(max(_PIXELS // self.task.example[0, 0].numel(), least), most, self._learn)
        learn = [torch.from_numpy(image) for image in self.task.data.images(self.cases[:count])]
        how = Rounding(steps=self.steps, seed=self.task.seed)
        fitted = rounded(simulated, grids, learn, self.held_back, how)
        after = with_weights(before, grids, fitted)
        return self._better(before, after, f"weights of {len(layers)} layers rounded block by block")

    def _better(self, before: Quantized, after: Quantized, what: str) -> Quantized:
        """The second if it disturbs the logits of cases held back less, as every runtime of CPUs places integers."""
        errors = [self._disturbance(each) for each in (before, after)]
        ratio = sum(new / max(old, 1e-30) for old, new in zip(*errors, strict=True)) / len(errors[0])
        done = (
            f"{self.word}: {what}: on {self._held} cases held back the logits' squared error is {ratio:.2f} times that "
            "before"
        )
        better = all(new <= old for old, new in zip(*errors, strict=True)) and ratio < 1
        self.task.note(done if better else f"{done}, so that is not done")
        return after if better else before

    @torch.no_grad()
    def _disturbance(self, quantized: Quantized) -> list[float]:
        wanted = [self.graph(image) for image in self.held_back]
        found = []
        for rules in on_cpus():
            simulated = quantized.simulated(rules)
            errors = [
                float((simulated(image) - logits).square().mean())
                for image, logits in zip(self.held_back, wanted, strict=True)
            ]
            found.append(sum(errors))
        return found


def with_weights(quantized: Quantized, grids: Mapping[str, Grid], weights: Mapping[str, Tensor]) -> Quantized:
    """The network with weights that lie on their grids, and biases, by their paths."""
    learnt = Learnt(grids=grids, means=quantized.learnt.means)
    graph = copy.deepcopy(quantized.graph)
    changed = Quantized(graph, quantized.spans(), quantized.assignment, learnt).eval()
    for node in convolutions(changed.graph):
        if weight_path(node) in grids:
            set_constant(changed.graph, node, 1, weights[weight_path(node)])
            bias = node.args[2] if len(node.args) > 2 else None
            if isinstance(bias, fx.Node) and str(bias.target) in weights:
                set_constant(changed.graph, node, 2, weights[str(bias.target)])
    return changed
