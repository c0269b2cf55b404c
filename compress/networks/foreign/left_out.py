"""Tensors that a network's checkpoints have, and the network has not: second names of layers, heads of training."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def leave_out(net: nn.Module, names: Iterable[str]) -> None:
    """Keep the names with the network, for whoever loads its weights."""
    # Underscored: it is no attribute by which a layer differs from the one it was built as (storage/changed.py).
    vars(net)["_left_out"] = frozenset(names)


def left_out(net: nn.Module) -> frozenset[str]:
    """Names in a checkpoint that are nothing of this network's, and are no sign of another's."""
    found: frozenset[str] = vars(net).get("_left_out", frozenset())
    return found
