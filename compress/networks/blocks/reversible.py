"""Reversible residual blocks (Gomez et al. 2017, arXiv 1707.04585): what went in is computed from what came out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

Pair = tuple[Tensor, Tensor]
Gradients = dict[nn.Parameter, Tensor]


class Reversible(nn.Module):
    """Additive coupling of two halves of the channels: y1 = x1 + f(x2), y2 = x2 + g(y1)."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        """What either answers has the shape of what it reads, and is always the same for the same."""
        super().__init__()
        self.f, self.g = f, g

    def forward(self, first_BC: Tensor, second_BC: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of the answer; any number of axes after the channels."""
        first_BC = first_BC + self.f(second_BC)
        return first_BC, second_BC + self.g(first_BC)

    def back(self, answers: Pair, asked: Pair, grads: Gradients) -> tuple[Pair, Pair]:
        """What the block read, computed from what it answered.

        Args:
            answers: the two halves that it answered.
            asked: their gradients.
            grads: the gradients of parameters are added to those that are in it.

        Returns:
            The two halves that it read, and their gradients.
        """
        answer, grad = _again(self.g, answers[0], asked[1], grads)
        second, grad_first = answers[1] - answer, asked[0] + grad
        answer, grad = _again(self.f, second, grad_first, grads)
        return (answers[0] - answer, second), (grad_first, asked[1] + grad)


class ReversibleSequence(nn.Module):
    """Reversible blocks, one after another; in training only what the last one answers is kept.

    In evaluation, where no gradients are wanted, and where a hook watches a layer of it (a loss on features,
    say), it is an ordinary graph of additions. In training the sums are in float32 under autocast too: in fewer
    bits what is computed back would not be what was read.
    """

    def __init__(self, blocks: Iterable[Reversible]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BC: Tensor) -> Tensor:
        """As many channels as are read, an even number."""
        if not (self.training and torch.is_grad_enabled()) or self._is_watched():
            return torch.cat(_through(self.blocks, x_BC), dim=1)
        x_BC = x_BC.float() if torch.is_autocast_enabled(x_BC.device.type) else x_BC
        parameters = [one for one in self.parameters() if one.requires_grad]
        answer: Tensor = _Recomputed.apply(x_BC, list(self.blocks), *parameters)
        return answer

    def _is_watched(self) -> bool:
        """Whether a hook looks at a layer inside: it must see what gradients flow through, and see it once."""
        return any(one._forward_hooks or one._forward_pre_hooks for one in self.blocks.modules())


def _through(blocks: Iterable[nn.Module], x_BC: Tensor) -> Pair:
    halves = _halves(x_BC)
    for block in blocks:
        halves = block(*halves)
    return halves


class _Recomputed(torch.autograd.Function):
    """The blocks without their activations."""

    @staticmethod
    def forward(ctx: Any, x_BC: Tensor, blocks: list[Reversible], *parameters: nn.Parameter) -> Tensor:
        ctx.blocks, ctx.parameters = blocks, parameters
        device = x_BC.device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        y_BC = torch.cat(_through(blocks, x_BC), dim=1)
        ctx.save_for_backward(y_BC)
        return y_BC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BC: Tensor) -> tuple[Tensor | None, ...]:
        (y_BC,) = ctx.saved_tensors
        answers, asked = _halves(y_BC), _halves(grad_BC)
        grads: Gradients = {one: torch.zeros_like(one) for one in ctx.parameters}
        device, dtype, enabled = ctx.autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            for block in reversed(ctx.blocks):
                answers, asked = block.back(answers, asked, grads)
        return torch.cat(asked, dim=1), None, *grads.values()


def _halves(x_BC: Tensor) -> Pair:
    first_BC, second_BC = x_BC.chunk(2, dim=1)
    return first_BC, second_BC


def _again(module: nn.Module, x_BC: Tensor, grad_BC: Tensor, grads: Gradients) -> tuple[Tensor, Tensor]:
    """What a module answers to x, and the gradient of x; those of its parameters are added to `grads`."""
    own = [one for one in module.parameters() if one in grads]
    with torch.enable_grad(), _unmoved(module):
        x_BC = x_BC.detach().requires_grad_(True)
        answer = module(x_BC)
        grad_x, *found = torch.autograd.grad(answer, [x_BC, *own], grad_BC.to(answer.dtype))
    for one, grad in zip(own, found, strict=True):
        grads[one] += grad
    return answer.detach(), grad_x


@contextmanager
def _unmoved(module: nn.Module) -> Iterator[None]:
    """A batch norm that sees a batch for the second time does not count it again."""
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
