"""Layers side by side on one input, their answers added: a residual block's two ways."""

from __future__ import annotations

import functools
import operator

from torch import Tensor, nn


class Sum(nn.Sequential):
    """Layers side by side on the same input, their answers added up."""

    def forward(self, input: Tensor) -> Tensor:
        return functools.reduce(operator.add, [layer(input) for layer in self])
