"""A network with calibrated ranges: float inside, and ready to be written as each runtime wants its integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from export.graph import convolutions, layer_name, reads_signs
from export.modules import Precision
from export.programs.compiled import compiled_once
from export.quantization.assignment import ALL_INTEGERS, Assignment
from export.quantization.learnt import NOTHING, Grid, Learnt
from export.quantization.placement import float_layers, place
from export.quantization.rules import Rules
from export.quantization.scales import Range
from export.quantization.simulation import as_computed
from export.quantization.stretch import Narrow, narrow_inputs

# What every runtime has in common: integers into each convolution. For looking at the effect in torch only.
_SIMULATION = Rules(
    activations="uint8",
    carriers=frozenset({"max_pool", "concat", "shuffle"}),
    behind_carriers=False,
    outputs=False,
    adds="none",
    one_scale_concat=False,
    transposed_as_convolution=False,
)


class Quantized(nn.Module):
    """A folded graph, the range of each of its activations, and what is not in integers.

    Called, it simulates integers in float; what counts is the artifact made from `placed(rules)`.
    """

    precision: ClassVar[Precision] = "integers"
    description: Mapping[str, Any]
    """How `compress` builds it again: the word `int8` and what belongs to it."""

    def __init__(
        self,
        graph: fx.GraphModule,
        ranges: Mapping[str, Range],
        assignment: Assignment = ALL_INTEGERS,
        learnt: Learnt = NOTHING,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.reads_signs = any(map(reads_signs, convolutions(graph)))
        self.names = tuple(ranges)
        self.assignment = assignment
        self.ranges: Tensor
        self.register_buffer("ranges", torch.tensor(list(ranges.values()), dtype=torch.float64).reshape(-1, 2))
        self._bits = {path: grid.bits for path, grid in learnt.grids.items()}
        # Paths have dots, which names of buffers cannot.
        self.grids = _Tensors([grid.scale_O for grid in learnt.grids.values()])
        self._averaged = tuple(learnt.means)
        self.means = _Tensors(list(learnt.means.values()))
        self._simulated: fx.GraphModule | None = None

    @property
    def learnt(self) -> Learnt:
        """What its integers have learnt beside ranges."""
        scales = zip(self._bits.items(), self.grids.buffers(), strict=True)
        return Learnt(
            grids={path: Grid(scale_O=scale_O, bits=bits) for (path, bits), scale_O in scales},
            means=dict(zip(self._averaged, self.means.buffers(), strict=True)),
        )

    def changed(self, *, assignment: Assignment | None = None, learnt: Learnt | None = None) -> Quantized:
        """The same network with other layers in float, or having learnt something else."""
        return Quantized(
            self.graph,
            self.spans(),
            self.assignment if assignment is None else assignment,
            self.learnt if learnt is None else learnt,
        ).eval()

    def placed(self, rules: Rules) -> fx.GraphModule:
        """The graph with Quantize-Dequantize pairs where a runtime fuses them."""
        graph = place(self.graph, self.spans(), self.assignment.in_float(rules), rules, self.learnt)
        graph.meta["assigned_by"] = self.assignment.word
        return graph

    @compiled_once
    def simulated(self, rules: Rules) -> fx.GraphModule:
        """The network in torch as a runtime computes it: what `placed` is written for, not to be written itself."""
        return as_computed(self.placed(rules), rules)

    def layers(self, rules: Rules) -> dict[str, int]:
        """How many convolutions and linear layers run in integers and in float under these rules."""
        in_float = len(self.in_float(rules))
        return {"integer": len(list(convolutions(self.graph))) - in_float, "float": in_float}

    def in_float(self, rules: Rules) -> list[tuple[str, str]]:
        """The layers that are in float under these rules, each with why."""
        return float_layers(self.graph, self.spans(), self.assignment.in_float(rules), rules)

    def layer_names(self) -> list[str]:
        """The names of layers that an assignment can use."""
        return [layer_name(node) for node in convolutions(self.graph)]

    def coarser(self, rules: Rules) -> dict[str, int]:
        """In how many output channels of each layer weights have a coarser step than 8 bits allow, to fit 16 bits."""
        found: dict[str, int] = self.placed(rules).meta.get("coarser", {})
        return {layer: channels for layer, channels in found.items() if channels}

    def narrow(self) -> list[Narrow]:
        """The inputs of concatenations that would keep too few levels beside the others."""
        # Whether one is stretched depends on the grids of what reads it.
        self.learnt.mark(self.graph)
        return narrow_inputs(self.graph, self.spans())

    def spans(self) -> dict[str, Range]:
        """The range of every activation that some runtime may quantize, by its name."""
        return {name: (low, high) for name, (low, high) in zip(self.names, self.ranges.tolist(), strict=True)}

    def forward(self, image: Tensor) -> Tensor:
        if self._simulated is None:
            # Not a submodule: its tensors are copies, and must not appear in the state dict.
            object.__setattr__(self, "_simulated", self.simulated(_SIMULATION))
        assert self._simulated is not None
        return self._simulated(image)


class _Tensors(nn.Module):
    """Tensors that are saved with a network."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        for number, tensor in enumerate(tensors):
            self.register_buffer(str(number), tensor.clone())
