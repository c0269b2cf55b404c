"""The two 16-bit floating-point formats: what each holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Word = Literal["float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A 16-bit floating-point format (IEEE 754 binary16, or the upper half of binary32)."""

    word: Word
    dtype: torch.dtype
    largest: float
    smallest: float
    """The smallest normal number: some processors take what is below it for zero."""
    digits: int
    """Bits of the significand, the implicit one included: so many equal terms, as a power of two, can be added up
    one by one; a further one is lost in the sum."""
    least_opset: int
    """The first ONNX operator set whose convolutions and norms take it."""

    @property
    def unit(self) -> float:
        """The largest relative error of rounding to it."""
        return 2.0**-self.digits

    @property
    def longest(self) -> int:
        """How many terms can be added up one by one before the next is lost."""
        return 2**self.digits

    def rounded(self, x: Tensor) -> Tensor:
        """What a processor without subnormal numbers keeps of a float32 tensor, as float32."""
        # The smallest normal number stays; between it and the next below there is none.
        return F.hardshrink(x.to(self.dtype).to(x.dtype), 0.999 * self.smallest)


FORMATS: Mapping[str, Format] = {
    "float16": Format(
        word="float16", dtype=torch.float16, largest=65504.0, smallest=2.0**-14, digits=11, least_opset=18
    ),
    "bfloat16": Format(
        word="bfloat16",
        dtype=torch.bfloat16,
        largest=torch.finfo(torch.bfloat16).max,
        smallest=2.0**-126,
        digits=8,
        least_opset=22,
    ),
}
