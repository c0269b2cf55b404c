"""Weights of two or three values an output channel, stored in bits: one bit a weight, or with zeros five in a byte.

A weight belongs here if within each output channel all its values are +s or -s (two values), or +s, -s or 0 (three), s
being that channel's own. What is stored is then exact: unpacked, it is the same to the last bit. That is seen from the
values, whoever made them, and it stays true when a batch norm is folded into the layer or its weights become integers.

Legend: O output channels, N bytes, V weights a byte (8 of two values, 5 of three).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_PER_CHANNEL = 8
"""Of fewer weights a channel, equal sizes can be chance, and bits save nothing."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A weight in bits: `size` of each output channel times a sign, or a zero."""

    codes: NDArray[np.uint8]
    """N bytes, the weights in their own order, padded at the end."""
    size: NDArray[np.float32]
    """One for each output channel; of an integer weight, whole numbers."""
    shape: tuple[int, ...]
    """Of the weight, output channels first."""
    zeros: bool
    """Whether there are three values."""

    @property
    def bits(self) -> int:
        """Of one weight, rounded up: 1, or 2 for the 1.6 of three values."""
        return 2 if self.zeros else 1

    def signs(self) -> NDArray[np.int8]:
        """-1, +1 and, of three values, 0, in the weight's shape."""
        count = int(np.prod(self.shape))
        return table(self.zeros)[self.codes].reshape(-1)[:count].reshape(self.shape)

    def values(self) -> NDArray[np.float32]:
        """The weight itself."""
        return self.signs() * self.size.reshape(-1, *[1] * (len(self.shape) - 1))


@functools.cache
def table(zeros: bool) -> NDArray[np.int8]:
    """What each byte stands for: [256, 8] signs, lowest bit first, or [243, 5] signs and zeros, lowest digit first."""
    if zeros:
        return ((np.arange(243)[:, None] // 3 ** np.arange(5)) % 3 - 1).astype(np.int8)
    return ((np.arange(256)[:, None] >> np.arange(8)) % 2 * 2 - 1).astype(np.int8)


def packed(weight: Tensor) -> Packed | None:
    """The weight of a convolution in bits; None if it has other values.

    Args:
        weight: (output channels, input channels of a group, kernel...), float32 or integers.
    """
    size_O = sizes(weight)
    if size_O is None:
        return None
    signs = torch.sign(weight).to(torch.int8).numpy().reshape(-1)
    # A channel of zeros alone has the size 0, and needs no third value.
    lone = (size_O != 0).numpy().repeat(signs.size // weight.shape[0])
    zeros = bool(((signs == 0) & lone).any())
    if not zeros:
        signs = np.where(signs == 0, np.int8(1), signs)
    width = table(zeros).shape[1]
    padded = np.pad(signs, (0, -signs.size % width), constant_values=-1).reshape(-1, width)
    digits = padded + 1 if zeros else padded > 0
    codes = (digits * (3 if zeros else 2) ** np.arange(width)).sum(1).astype(np.uint8)
    return Packed(codes=codes, size=size_O.float().numpy(), shape=tuple(weight.shape), zeros=zeros)


def sizes(weight: Tensor) -> Tensor | None:
    """The one absolute value of each output channel beside zero; None if there are several, or few weights each."""
    if weight.dim() < 3 or weight[0].numel() < LEAST_PER_CHANNEL or weight.dtype not in (torch.float32, torch.int8):
        return None
    absolute = weight.detach().abs().flatten(1)
    size_O = absolute.amax(1)
    fits = (absolute == size_O[:, None]) | (absolute == 0)
    # abs(-128) is -128 in int8, and no grid of ours has it.
    return size_O if bool(fits.all() and torch.isfinite(size_O).all() and (size_O >= 0).all()) else None


def bits_of(weight: Tensor) -> int | None:
    """Bits in which one weight of this tensor is stored, if it is stored in bits: 1, or 2 with zeros; None if not."""
    size_O = sizes(weight)
    if size_O is None:
        return None
    return 2 if bool((weight.flatten(1) == 0)[size_O != 0].any()) else 1
