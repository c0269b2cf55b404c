"""A network with calibrated ranges: float inside, and ready to be written as each runtime wants its integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from export.graph import convolutions, layer_name, reads_signs
from export.modules import Precision
from export.quantization.placement import float_layers, place
from export.quantization.rules import Rules
from export.quantization.scales import Range
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
    """A folded graph, the range of each of its activations, and the layers that stay in float.

    `exact` are layers that stay in float only where sums of pairs must fit 16 bits: they bear no coarser step.

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
    ) -> None:
        super().__init__()
        self.graph = graph
        self.reads_signs = any(map(reads_signs, convolutions(graph)))
        self.names = tuple(ranges)
        self.keep_float = keep_float
        self.exact = exact
        self.ranges: Tensor
        self.register_buffer("ranges", torch.tensor(list(ranges.values()), dtype=torch.float64).reshape(-1, 2))
        self._simulated: fx.GraphModule | None = None

    def placed(self, rules: Rules) -> fx.GraphModule:
        """The graph with Quantize-Dequantize pairs where a runtime fuses them."""
        return place(self.graph, self._spans(), self._kept(rules), rules)

    def layers(self, rules: Rules) -> dict[str, int]:
        """How many convolutions and linear layers run in integers and in float under these rules."""
        in_float = len(float_layers(self.graph, self._spans(), self._kept(rules), rules))
        return {"integer": len(list(convolutions(self.graph))) - in_float, "float": in_float}

    def layer_names(self) -> list[str]:
        """The names that `keep_float` can use."""
        return [layer_name(node) for node in convolutions(self.graph)]

    def coarser(self, rules: Rules) -> dict[str, int]:
        """In how many output channels of each layer weights have a coarser step than 8 bits allow, to fit 16 bits."""
        found: dict[str, int] = self.placed(rules).meta.get("coarser", {})
        return {layer: channels for layer, channels in found.items() if channels}

    def narrow(self) -> list[Narrow]:
        """The inputs of concatenations that would keep too few levels beside the others."""
        return narrow_inputs(self.graph, self._spans())

    def _kept(self, rules: Rules) -> tuple[str, ...]:
        return (*self.keep_float, *self.exact) if rules.pairs_in_16_bits else self.keep_float

    def _spans(self) -> dict[str, Range]:
        return {name: (low, high) for name, (low, high) in zip(self.names, self.ranges.tolist(), strict=True)}

    def forward(self, image: Tensor) -> Tensor:
        if self._simulated is None:
            # Not a submodule: its tensors are copies, and must not appear in the state dict.
            object.__setattr__(self, "_simulated", self.placed(_SIMULATION))
        assert self._simulated is not None
        return self._simulated(image)
