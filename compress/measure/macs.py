"""Multiply-accumulates, counted by torch's own counter of operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def macs_of(net: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates over these inputs; of a module on the meta device nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for each in inputs:
            net(each)
    return counter.get_total_flops() // 2
