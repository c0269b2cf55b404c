"""A network with calibrated ranges: float inside, and ready to be written as each runtime wants its integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from export.graph import convolutions, layer_name, reads_signs
from export.modules import Precision
from export.quantization.learnt import NOTHING, Grid, Learnt
from export.quantization.placement import float_layers, place
from export.quantization.rules import Rules
from export.quantization.scales import Range
from export.quantization.simulation import as_computed
from export.quantization.stretch import Narrow, narrow_inputs

PrecisionName = Literal["int8", "float16", "float32"]
"""What a layer computes in."""
Assigned = Mapping[str, Mapping[str, PrecisionName]]
"""By the runtime's word, the layers and operators that were not put in integers for it."""

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
    """A folded graph, the range of each of its activations, and the layers that stay in float.

    `exact` are layers that stay in float only where sums of pairs must fit 16 bits: they bear no coarser step.
    `assigned` is what was chosen for one runtime alone, by its word: the layers and operators that are not in
    integers there, and the precision that each is in instead.

    Called, it simulates integers in float; what counts is the artifact made from `placed(rules)`.
    """

    precision: ClassVar[Precision] = "integers"
    description: Mapping[str, Any]
    """How `compress` builds it again: the word `int8` and what belongs to it."""

    def __init__(
        self,
        graph: fx.GraphModule,
        ranges: Mapping[str, Range],
        keep_float: tuple[str, ...],
        exact: tuple[str, ...] = (),
        assigned: Assigned = MappingProxyType({}),
        learnt: Learnt = NOTHING,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.reads_signs = any(map(reads_signs, convolutions(graph)))
        self.names = tuple(ranges)
        self.keep_float = keep_float
        self.exact = exact
        self.assigned = assigned
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

    def changed(
        self,
        keep_float: tuple[str, ...] | None = None,
        exact: tuple[str, ...] | None = None,
        assigned: Assigned | None = None,
        learnt: Learnt | None = None,
    ) -> Quantized:
        """The same network with other layers in float, or having learnt something else."""
        return Quantized(
            self.graph,
            self.spans(),
            self.keep_float if keep_float is None else keep_float,
            self.exact if exact is None else exact,
            self.assigned if assigned is None else assigned,
            self.learnt if learnt is None else learnt,
        ).eval()

    def placed(self, rules: Rules) -> fx.GraphModule:
        """The graph with Quantize-Dequantize pairs where a runtime fuses them."""
        return place(self.graph, self.spans(), self._kept(rules), rules, self.learnt)

    def simulated(self, rules: Rules) -> fx.GraphModule:
        """The network in torch as a runtime computes it: what `placed` is written for, not to be written itself."""
        return as_computed(self.placed(rules), rules)

    def layers(self, rules: Rules) -> dict[str, int]:
        """How many convolutions and linear layers run in integers and in float under these rules."""
        in_float = len(self.in_float(rules))
        return {"integer": len(list(convolutions(self.graph))) - in_float, "float": in_float}

    def in_float(self, rules: Rules) -> list[tuple[str, str]]:
        """The layers that are in float under these rules, each with why."""
        return float_layers(self.graph, self.spans(), self._kept(rules), rules)

    def layer_names(self) -> list[str]:
        """The names of layers that `keep_float` can use."""
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

    def _kept(self, rules: Rules) -> dict[str, str]:
        """What stays in float under these rules, whatever they say, and why."""
        chosen = self.assigned.get(rules.runtime, {})
        return {
            **dict.fromkeys(self.exact if rules.pairs_in_16_bits else (), "it bears no coarser step than 8 bits allow"),
            **dict.fromkeys(chosen, "mixed precision chose float for this runtime (see what the step says)"),
            **dict.fromkeys(self.keep_float, "the recipe keeps it in float (int8: keep)"),
        }

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
