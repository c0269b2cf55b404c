"""Weights in bits stay as they are in training: what is around them learns.

A layer whose weight has two or three values carries a mark, the plain attribute `bits`, which the network's description
keeps like any other (compress/storage/changed.py).
"""

from __future__ import annotations

from typing import Any

from torch import nn

MARK = "bits"


def mark(layer: nn.Module, bits: int) -> None:
    """Say of a layer that its weight is in so many bits."""
    setattr(layer, MARK, bits)


def marked(net: nn.Module) -> dict[str, Any]:
    """Every layer whose weight is in bits, by name."""
    return {name: layer for name, layer in net.named_modules() if isinstance(vars(layer).get(MARK), int)}


def hold(net: nn.Module) -> None:
    """Let no training move these weights."""
    for layer in marked(net).values():
        layer.weight.requires_grad_(False)
