"""Batch normalization over few channels, on a CPU.

torch normalizes as many channels at once as fit into a vector register and the rest one by one; where a layer of a
pruned network has 8 or 20 of them, that takes longer than its convolution. In memory (channels last) 16 neighbouring
pixels of C channels are one pixel of 16 C: those are normalized by the same kernels, and the sums of the 16 parts put
together. The result is that of torch but for rounding; benchmarks/batch_norm.md has the times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

PARTS = 16
"""Neighbouring pixels that are taken as one; as many numbers as the widest vector register of a CPU holds."""

native = torch.ops.aten
_Norm = nn.BatchNorm2d | nn.BatchNorm3d


@contextmanager
def fast_batch_norms(net: nn.Module) -> Iterator[None]:
    """Within it the network's batch norms over few channels train faster, on a CPU."""
    with computed_by(_forward, [module for module in net.modules() if isinstance(module, _Norm) and _is_slow(module)]):
        yield


@contextmanager
def computed_by(forward: Callable[[Any, Tensor], Tensor], modules: Sequence[nn.Module]) -> Iterator[None]:
    """Within it `forward(module, given)` is what each of the modules computes."""
    for module in modules:
        module.forward = partial(forward, module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _is_slow(norm: _Norm) -> bool:
    """Whether some of its channels are normalized singly, and are more than a few in a hundred of them."""
    usual = type(norm) in (nn.BatchNorm2d, nn.BatchNorm3d) and norm.affine and norm.track_running_stats
    few = norm.num_features % PARTS != 0 and norm.num_features < 8 * PARTS
    return usual and few and norm.momentum is not None and norm.weight.device.type == "cpu"


def _forward(norm: _Norm, given: Tensor) -> Tensor:
    """What the layer's own forward gives for (B, C, ...); not training, or with channels first, it is that one."""
    count = given.numel() // given.shape[1]
    if not norm.training or not given.movedim(1, -1).is_contiguous() or count % PARTS or count == PARTS:
        return type(norm).forward(norm, given)
    normalized, mean, variance = _BatchNorm.apply(given, norm.weight, norm.bias, norm.eps)
    assert norm.momentum is not None  # _is_slow
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    return normalized


class _BatchNorm(torch.autograd.Function):
    """Input and output (B, C, ...) with channels last; also the batch's mean and (biased) variance (C)."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = _widened(given)
        one, zero = weight.new_ones(wide.shape[1]), weight.new_zeros(wide.shape[1])
        _, means, deviations = native.native_batch_norm(wide, one, zero, None, None, True, 0.0, eps)
        means_PC, variances_PC = means.view(PARTS, -1), deviations.view(PARTS, -1) ** -2 - eps
        mean, variance = means_PC.mean(0), variances_PC.mean(0) + means_PC.var(0, unbiased=False)
        statistics = (mean.repeat(PARTS), variance.repeat(PARTS))
        normalized, _, _ = native.native_batch_norm(
            wide, weight.repeat(PARTS), bias.repeat(PARTS), *statistics, False, 0.0, eps
        )
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(given, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return _narrowed(normalized, given), mean, variance

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        given, weight, mean, inverse = ctx.saved_tensors
        layout = torch.channels_last if slope.dim() == 4 else torch.channels_last_3d
        wide, wide_slope = _widened(given), _widened(slope.contiguous(memory_format=layout))
        statistics = (mean.repeat(PARTS), inverse.repeat(PARTS))
        _, of_weight, of_bias = native.native_batch_norm_backward(
            wide_slope, wide, weight.repeat(PARTS), None, None, *statistics, True, 0.0, [False, True, True]
        )
        of_weight, of_bias = of_weight.view(PARTS, -1).sum(0), of_bias.view(PARTS, -1).sum(0)
        # Ioffe & Szegedy 2015, section 3, with the sums that are the slopes of weight and bias.
        count = given.numel() // given.shape[1]
        by_slope = weight * inverse
        by_given = -by_slope * inverse * of_weight / count
        offset = -by_slope * of_bias / count - by_given * mean
        at = partial(_everywhere, like=wide)
        of_given = torch.addcmul(torch.addcmul(at(offset), wide, at(by_given)), wide_slope, at(by_slope))
        return _narrowed(of_given, given), of_weight, of_bias, None


def _widened(tensor: Tensor) -> Tensor:
    """The same memory as (1, PARTS x C, pixels / PARTS, 1), channels last."""
    return tensor.movedim(1, -1).reshape(1, -1, 1, PARTS * tensor.shape[1]).movedim(-1, 1)


def _narrowed(wide: Tensor, like: Tensor) -> Tensor:
    """Back again; no view of `wide`, since the network may go on in place and autograd refuses that on views."""
    return like.new_empty(0).set_(wide.untyped_storage(), 0, like.shape, like.stride())


def _everywhere(value_C: Tensor, like: Tensor) -> Tensor:
    """One number for each channel, as (1, PARTS x C, 1, 1)."""
    return value_C.repeat(PARTS).to(like.dtype).view(1, -1, 1, 1)
