"""Sparse weights: their zeros stay zero in training.

A layer whose weight was made sparse carries a mark, the plain attribute `zeros`, which the
network's description keeps like any other (compress/storage/changed.py). The zeros themselves are in the
weight: nothing else is stored, and a layer that takes a marked one's place is dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MARK = "zeros"


def mark(layer: nn.Module, pattern: str) -> None:
    """Say of a layer that the zeros of its weight stay, and which pattern they follow."""
    setattr(layer, MARK, pattern)


def marked(net: nn.Module) -> dict[str, Any]:
    """Every layer whose zeros stay, by name."""
    return {name: layer for name, layer in net.named_modules() if isinstance(vars(layer).get(MARK), str)}


def masks(net: nn.Module) -> dict[str, Tensor]:
    """Where the weights of the marked layers are zero (True), by parameter name; empty for a dense network."""
    return {f"{name}.weight": layer.weight.detach() == 0 for name, layer in marked(net).items()}


@torch.no_grad()
def apply(net: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Make these values zero again, in place: an optimizer's step has moved them."""
    for name, zero in masks.items():
        net.get_parameter(name).masked_fill_(zero, 0.0)
