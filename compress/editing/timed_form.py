"""A network in the form in which its time is measured: as it is, or in the 8-bit integers that a recipe ends in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.editing.budget import Runtime
from export.capture import folded_graph
from export.quantization.observers import MinMax, observe
from export.quantization.placement import candidates
from export.quantization.quantized import Quantized
from export.registry import find_backend


def timed_form(net: nn.Module, example: Tensor, runtime: Runtime) -> nn.Module:
    """What is exported of a network, or of a part of one, to be timed on a runtime.

    Integers have the ranges of one random image: how long they take depends on where they are, not on their values.

    Raises:
        ExportError: if the network cannot be captured.
    """
    if runtime.precision == "float":
        return net
    graph = folded_graph(net.eval(), example, ())
    image = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    seen = MinMax()
    observe(graph, candidates(graph), seen, [image])
    rules = find_backend(runtime.backend).rules
    assert rules is not None, "ToABudget refuses a runtime without integers"
    return Quantized(graph, seen.ranges).eval().placed(rules)
