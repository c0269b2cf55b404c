"""The steps of integer grids: as fine as a range allows, and never finer than what runtimes compute from them can hold.

A layer's sums lie on a grid of their own, whose step is the input's times the weight's. Every runtime sums up there in
32 bits and multiplies by that step over the output's; ONNX Runtime stores the bias on that grid too, as int32
(core/optimizer/qdq_transformer/weight_bias_quantization.cc).

Legend: O output channels of one scale, C input channels of a group, T taps of the kernel (flat).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.quantization.rules import Rules
from export.quantization.saturation import LARGEST_CODE

Range = tuple[float, float]

LEVELS = 64
"""As many of a tensor's 255 steps must be left where it shares another's grid: 6 bits, with at most 4 times the error
of a grid of its own. (A W-Net whose image kept 11 beside logits lost 0.136 of Dice.)"""

_FINEST = 2.0**-60
"""A tensor that needs a finer step is all but zero; its product with a weight's step would leave float32."""
_FINEST_SUM = 2.0**-100
"""The finest step of a layer's sums: over the step of its output it is still a float32."""
_SUMS = 2.0**31 - 2.0**12
"""Sums and bias must fit 32 bits; float32 rounds what a runtime divides."""
_EXACT = 2.0**24
"""Integers up to this are exact in float32."""


def grid(span: Range, rules: Rules) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (uint8 or int8) of a tensor with this range; zero is always on the grid."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    if rules.activations == "uint8":
        scale = _usable((high - low) / 255)
        return torch.tensor(scale), torch.tensor(round(-low / scale), dtype=torch.uint8)
    return torch.tensor(_usable(max(-low, high) / 127)), torch.tensor(0, dtype=torch.int8)


def levels(span: Range, of: Range) -> float:
    """How many steps of a grid that reaches over another range lie in this one, zero included in both."""
    narrow, wide = (max(high, 0.0) - min(low, 0.0) for low, high in (span, of))
    return 255 * narrow / wide if wide > 0 else 255.0


def _usable(scale: float) -> float:
    # A tensor that is all but zero needs some scale: as if it reached 1, since a layer's bias is rounded with it.
    return scale if scale > _FINEST else 1 / 255


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One use of a weight: the bias that its layer adds, and the step of what its layer reads."""

    bias_O: Tensor | None
    input_scale: float


def weight_scale(weight_OCT: Tensor, readings: Sequence[Reading]) -> Tensor:
    """The scale of each output channel of an int8 weight: its largest weight is code 127, unless 32 bits are too few.

    A channel whose weights are tiny beside its bias gets a coarser scale: what rounding then takes from a product is
    less than a millionth of the bias. A channel of zeros gets one on which its bias is exact.
    """
    largest_O = weight_OCT.abs().double().amax((1, 2))
    scale_O = torch.stack([largest_O / 127, *(least_scale(weight_OCT, reading) for reading in readings)]).amax(0)
    zeros_O = largest_O == 0
    if zeros_O.any():
        # Zeros are code 0 on any grid, but one as coarse as the other channels' would round the bias with them.
        biases_O = torch.stack([_for_bias(largest_O, reading) for reading in readings]).amax(0)
        scale_O = torch.where(zeros_O, torch.maximum(scale_O, biases_O), scale_O)
        scale_O = torch.where(zeros_O & (biases_O == 0), torch.maximum(scale_O, largest_O.max() / 127), scale_O)
    return scale_O.to(weight_OCT.dtype)


def least_scale(weight_OCT: Tensor, reading: Reading) -> Tensor:
    """The finest scale with which the bias and any sum of products fit 32 bits, each weight rounded up by a half."""
    products = weight_OCT[0].numel()
    sums_O = LARGEST_CODE * weight_OCT.abs().double().sum((1, 2))
    if reading.bias_O is not None:
        sums_O = sums_O + reading.bias_O.abs().double() / reading.input_scale
    room = max(_SUMS - LARGEST_CODE * products / 2, _EXACT)
    return (sums_O / room).clamp(min=_FINEST_SUM / min(reading.input_scale, 1.0))


def _for_bias(like_O: Tensor, reading: Reading) -> Tensor:
    """The scale on which the bias, all that a channel of zeros has, is an integer that float32 holds exactly."""
    bias_O = torch.zeros_like(like_O) if reading.bias_O is None else reading.bias_O.abs().double()
    return bias_O / reading.input_scale / _EXACT
