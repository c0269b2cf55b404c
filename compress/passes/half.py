"""16-bit floating point: tensors and casts in the file itself, and in 32 bits what 16 cannot hold, found on cases.

TensorRT from 11 on takes precision from the file's types alone, and converters that look at no data make masks black:
an activation over 65,504 is infinite in float16, and from there on nothing is right (Micikevicius et al. 2018,
arXiv 1710.03740, section 3). What operations compute inside is looked at too (export/half/statistics.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from compress.data.dataset.cases import Role
from compress.editing.activations import Images, calibration_cases, images
from compress.editing.named_layers import check_keep, named
from compress.errors import PassError
from compress.progress import bar
from export.backends.torch import infer_from_module
from export.capture import folded_graph
from export.graph import convolutions, layer_name
from export.half.formats import FORMATS, Word
from export.half.network import Half as HalfNetwork
from export.half.network import plain
from export.half.operations import PRODUCTS
from export.half.reasons import Reasons, not_finite
from export.half.statistics import Seen, statistics
from export.modules import IN_WORDS, Precision, precision_of
from export.to_onnx import parity

if TYPE_CHECKING:
    from compress.data.dataset.cases import Case
    from compress.task import Task

ALIKE = 1e-3
"""Share of pixels of the calibration cases that may change class."""
COMPARED = 8
"""Calibration cases on which that is seen."""
TOLD = 6
"""Names that a note lists."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Half:
    """Weights and activations in 16 bits, but where calibration cases show that these do not suffice."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "half"

    type: Word = "float16"
    """`float16` (11 bits of significand, up to 65,504), or `bfloat16` (8 bits, the range of float32)."""
    keep: tuple[str, ...] = ()
    """Layers that stay in 32 bits: names (`head`), modules (`decoder.3`) or patterns (`encoder.*.0`)."""
    calibrate: Annotated[int, Field(ge=1)] | None = None
    """How many calibration cases to look at; None uses all that the data sets aside."""

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",)

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network in 16 bits: the same weights, batch norms folded, rounded where they are read in 16 bits.

        Raises:
            PassError: if there are too few calibration cases, `keep` names no layer, the network is in 16 bits or
                integers already, its values are not finite, or no layer can be in 16 bits.
        """
        if (precision := precision_of(net)) != "float":
            raise PassError(f"half: the network is in {IN_WORDS[precision]} already; give half once, as the last pass")
        cases = calibration_cases(task, self.calibrate, "half")
        graph = plain(folded_graph(net, task.example, task.dynamic))
        check_keep(self.keep, [layer_name(node) for node in convolutions(graph)], "half")
        format = FORMATS[self.type]
        seen = statistics(graph, format, bar(images(task, cases), "looking at values", len(cases)))
        if place := not_finite(graph, seen):
            raise PassError(f"half: what {place} computes is not finite on the calibration cases; check the weights")
        kept = self._kept(graph) | Reasons(graph=graph, seen=seen, format=format).found()
        half = self._alike(graph, kept, seen, net, lambda: images(task, cases[:COMPARED]))
        if not half.layers()[self.type]:
            raise PassError(f"half: no layer is left in {self.type}: {'; '.join(_in_float32(half))}; leave half out")
        for line in told(half, cases):
            task.note(line)
        half.description = {
            "half": {
                "net": net.description,
                "input": list(task.example.shape),
                "dynamic": list(task.dynamic),
                "type": self.type,
                "kept": half.kept,
            }
        }
        return half

    def _kept(self, graph: fx.GraphModule) -> dict[str, str]:
        return {node.name: "the recipe keeps it" for node in convolutions(graph) if named(layer_name(node), self.keep)}

    def _alike(
        self,
        graph: fx.GraphModule,
        kept: Mapping[str, str],
        seen: Mapping[str, Seen],
        net: nn.Module,
        inputs: Images,
    ) -> HalfNetwork:
        """The network with as few more operations in 32 bits as leave the calibration cases their classes.

        First those go back whose values 16 bits change most; how many, bisection finds.
        """

        def with_first(count: int) -> HalfNetwork:
            more = dict.fromkeys(order[:count], f"without it more than {ALIKE:.1%} of pixels would change class")
            return HalfNetwork(copy.deepcopy(graph), self.type, {**more, **kept})

        candidates = [node.name for node in graph.graph.nodes if node.target in PRODUCTS and node.name not in kept]
        order = sorted(candidates, key=lambda name: -seen[name].error if name in seen else 0.0)
        half = with_first(0)
        if _changed(net, half, inputs()) <= ALIKE:
            return half
        low, high = 0, len(order)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _changed(net, with_first(middle), inputs()) <= ALIKE else (middle, high)
        return with_first(high)


def _changed(net: nn.Module, half: nn.Module, inputs: Iterable[Tensor]) -> float:
    """The share of pixels whose class changes."""
    return parity(infer_from_module(net), infer_from_module(half), (image.numpy() for image in inputs)).flipped


def told(half: HalfNetwork, cases: Sequence[Case]) -> list[str]:
    """What a report says of a network in 16 bits: how much of it is, and what is not, and why."""
    word, counts = half.format.word, half.layers()
    lines = [
        f"half: {counts[word]} of {sum(counts.values())} convolutions and linear layers are in {word} "
        f"({len(cases)} calibration cases)"
    ]
    lines += [f"half: in float32: {each}" for each in _in_float32(half)]
    if half.format.least_opset > 18:
        lines.append(f"half: the file is of opset {half.format.least_opset} or newer: older ones have no {word} layers")
    return lines


def _in_float32(half: HalfNetwork) -> list[str]:
    """What stays in 32 bits: for each reason the places that have it."""
    alike: dict[str, list[str]] = {}
    for place, reason in half.reasons().items():
        alike.setdefault(reason, []).append(place)
    told = []
    for reason, places in alike.items():
        more = f" and {len(places) - TOLD} more" if len(places) > TOLD else ""
        told.append(f"{', '.join(places[:TOLD])}{more}: {reason}")
    return told
