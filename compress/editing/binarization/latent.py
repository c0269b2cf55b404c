"""Weights of two or three values while they are learned: the signs of real ones, which the gradient moves.

BinaryConnect (Courbariaux et al. 2015, arXiv 1511.00363) keeps the real weights and multiplies by their signs; XNOR-Net
(Rastegari et al. 2016, arXiv 1603.05279) gives each output channel a size; Ternary Weight Networks (Li et al. 2016,
arXiv 1605.04711) have a zero for what is smaller than 0.7 times the mean.

Legend: O output channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from export.packed import bits_of

SMALL = 0.7
"""Of the mean absolute weight of an output channel: what is smaller becomes zero, where there are zeros."""


class Signs(nn.Module):
    """The weight that a layer computes with, of its real one."""

    def __init__(self, weight: Tensor, *, zero: bool, sized: bool) -> None:
        super().__init__()
        self.zero = zero
        self.size = nn.Parameter(mean_size(weight, zero=zero)) if sized else None

    def forward(self, real: Tensor) -> Tensor:
        signs: Tensor = _Signs.apply(real, self.zero)
        return signs if self.size is None else signs * self.size


class _Signs(torch.autograd.Function):
    """The signs of weights; the gradient passes as if they were the weights."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, zero: bool) -> Tensor:
        return _signs(real, zero)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _signs(real: Tensor, zero: bool) -> Tensor:
    signs = torch.where(real >= 0, 1.0, -1.0)
    if not zero:
        return signs
    axes = list(range(1, real.dim()))
    return torch.where(real.abs() < SMALL * real.abs().mean(axes, keepdim=True), 0.0, signs)


def mean_size(weight: Tensor, *, zero: bool) -> Tensor:
    """With which signs come nearest to a weight, in squares: the mean size of what is not zero (O, 1, ...)."""
    axes = list(range(1, weight.dim()))
    signs = _signs(weight.detach(), zero)
    return (weight.detach() * signs).sum(axes, keepdim=True) / signs.abs().sum(axes, keepdim=True).clamp_min(1)


def learn_signs(conv: Any, *, zero: bool, sized: bool) -> None:
    """From now on the layer computes with the signs of its weight, `sized` times a size that is learned too."""
    parametrize.register_parametrization(conv, "weight", Signs(conv.weight, zero=zero, sized=sized))


def settle(conv: Any) -> None:
    """The layer as a plain one again, its weight what it computed with last."""
    parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)
    # An ordinary, dense layout: training may have left another.
    conv.weight = nn.Parameter(conv.weight.detach().contiguous())
    assert bits_of(conv.weight) is not None, "a weight of signs is stored in bits"
