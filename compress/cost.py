"""What a network costs: the parameters that its answer depends on, and its multiply-accumulates for one input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from compress.foreign.copies import copy_of


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The size and the work of one network."""

    params: int
    """Weights, biases and norm parameters that the answer depends on."""
    macs: int
    """Multiply-accumulates for the example, in evaluation; integers count like floats."""
    dead: Mapping[str, int]
    """Parameters that no gradient of the answer reaches, by module: layers that are built and never asked, heads
    that only training has."""


def cost_of(net: nn.Module, example: Tensor) -> Cost:
    """Count a network in evaluation mode; nothing of it is changed.

    Args:
        example: an input of it, BCHW or BCDHW; on the meta device, with a network there, nothing is computed.
    """
    dead = dead_parameters(net, example)
    total = sum(parameter.numel() for parameter in net.parameters())
    return Cost(params=total - sum(dead.values()), macs=macs_of(net, example), dead=dead)


def macs_of(net: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates for this input, counted by torch's own counter of operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(example)
    return counter.get_total_flops() // 2


def dead_parameters(net: nn.Module, example: Tensor) -> dict[str, int]:
    """The parameters that no gradient of the answer reaches, counted for each module that has any of its own."""
    copied = copy_of(net).eval().requires_grad_(True)
    named = dict(copied.named_parameters())
    with torch.enable_grad():
        answers = [leaf for leaf in tree_leaves(copied(example)) if isinstance(leaf, Tensor) and leaf.requires_grad]
        total = sum((answer.sum() for answer in answers), start=torch.zeros((), device=example.device))
        # A network whose answer has no gradient at all has nothing that could be told dead from alive.
        grads = torch.autograd.grad(total, list(named.values()), allow_unused=True) if answers else ()
    dead: dict[str, int] = {}
    for (name, parameter), grad in zip(named.items(), grads, strict=bool(answers)):
        if grad is None:
            module = name.rpartition(".")[0]
            dead[module] = dead.get(module, 0) + parameter.numel()
    return dead
