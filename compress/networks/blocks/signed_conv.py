"""A convolution of signs: what it reads and what it multiplies with are -1 and +1, so that sums are counts of bits.

Bi-Real Net (Liu et al. 2018, arXiv 1808.00278): a shortcut carries the real values past the signs, and the gradient of
the sign is that of a piecewise polynomial. ReActNet (Liu et al. 2020, arXiv 2003.03488): learned thresholds (RSign) and
a learned bend of the answer (RPReLU).

    signs  = +1 where x >= threshold, else -1
    answer = bend(scale * conv(signs) + bias + gain * shortcut(x)) + shift

The convolution pads with zeros, as every other one: a place beyond the border adds nothing to a sum.

Legend: B batch, C input channels, O output channels.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SignedConv(nn.Module):
    """A convolution over the signs of its input, with what is learned around it."""

    reads_signs: ClassVar[bool] = True

    def __init__(self, conv: Any) -> None:
        super().__init__()
        # An nn.Conv1d, 2d or 3d without a bias: that is the one below, behind the scale.
        self.conv = conv
        around = [1] * (conv.weight.dim() - 2)
        inside, outside = (conv.in_channels, *around), (conv.out_channels, *around)
        self.threshold = nn.Parameter(torch.zeros(inside))
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(inside))
        self.scale = nn.Parameter(torch.ones(outside))
        self.bias = nn.Parameter(torch.zeros(outside))
        self.bend = nn.Parameter(torch.ones(conv.out_channels))
        self.shift = nn.Parameter(torch.zeros(outside))
        self.shortcut = has_shortcut(conv)
        if self.shortcut:
            self.gain = nn.Parameter(torch.zeros(outside))

    def forward(self, x: Tensor) -> Tensor:
        answer = self.linear(x)
        return F.prelu(answer, self.bend.to(answer.dtype)) + self.shift

    def linear(self, x: Tensor) -> Tensor:
        """The answer before it is bent and shifted."""
        answer = self.conv(signs_of(x, self.threshold, self.spread)) * self.scale + self.bias
        return answer + self.beside(x) * self.gain if self.shortcut else answer

    def beside(self, x: Tensor) -> Tensor:
        """What the shortcut carries: averaged where the convolution has strides, repeated or summed to its channels."""
        if max(self.conv.stride) > 1:
            pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(self.conv.stride) - 1]
            x = pool(x, self.conv.stride)
        before, after = self.conv.in_channels, self.conv.out_channels
        if after > before:
            return torch.cat([x] * (after // before), 1)
        return functools.reduce(operator.add, x.chunk(before // after, 1)) if before > after else x


def has_shortcut(conv: Any) -> bool:
    """Whether the input can be carried past: the size stays (by its strides), and channels are multiples."""
    reach = [spread * (side - 1) for side, spread in zip(conv.kernel_size, conv.dilation, strict=True)]
    same = conv.padding == "same" or (
        not isinstance(conv.padding, str) and all(2 * pad == far for pad, far in zip(conv.padding, reach, strict=True))
    )
    fewer, more = sorted((conv.in_channels, conv.out_channels))
    return same and more % fewer == 0


def signs_of(x: Tensor, threshold: Tensor, spread: Tensor) -> Tensor:
    """+1 where x >= threshold, else -1; what is no number is -1.

    Args:
        x: BC..., any floating dtype.
        threshold: C and the image's axes, each 1.
        spread: like the threshold; so far from it the gradient still reaches.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        signs: Tensor = _Sign.apply(x, threshold, spread)
        return signs
    return torch.where(x >= threshold, 1.0, -1.0).to(x.dtype)


class _Sign(torch.autograd.Function):
    """The sign, with the gradient of Bi-Real's polynomial: 2 - 2|u| for |u| < 1, u = (x - threshold) / spread."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, spread: Tensor) -> Tensor:
        ctx.save_for_backward(x, threshold, spread)
        return torch.where(x >= threshold, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, threshold, spread = ctx.saved_tensors
        slope = (2 - 2 * ((x - threshold) / spread).abs()).clamp_min(0) / spread
        grad = grads[0] * slope
        axes = [axis for axis in range(x.dim()) if axis != 1]
        return grad.to(x.dtype), -grad.sum(axes).reshape(threshold.shape).to(threshold.dtype), None
