"""Losses of overlap and cross entropy together.

Legend: B batch, K classes, S one or more axes of pixels (2-D and 3-D alike).
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from compress.train.losses.comparison import OPTIONS, Comparison, Weight
from compress.train.losses.cross_entropy import CE, entropy
from compress.train.losses.overlap import Dice


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiceCE:
    """Dice plus cross entropy, the usual choice (Isensee et al. 2021, nnU-Net)."""

    weight: Weight = 1.0

    def __call__(self, comparison: Comparison) -> Tensor:
        return Dice()(comparison) + CE()(comparison)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class ExpLog:
    """Powers of the logarithms of Dice and of the true class's probability (Wong et al. 2018, arXiv 1809.00076).

    A class weighs by the inverse square root of its share of the train masks' pixels.
    """

    weight: Weight = 1.0
    gamma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3
    dice: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.8
    """Share of the Dice term."""
    cross: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    """Share of the cross entropy term."""

    @model_validator(mode="after")
    def _some_share(self) -> Self:
        if self.dice == self.cross == 0:
            raise ValueError("dice and cross are both 0: nothing is left of the loss")
        return self

    def __call__(self, comparison: Comparison) -> Tensor:
        assert comparison.share_K is not None
        pixels = [axis for axis in range(comparison.truth_BKS.dim()) if axis != 1]
        both_K = (comparison.probability_BKS * comparison.truth_BKS).sum(pixels)
        dice_K = (2 * both_K + 1) / ((comparison.probability_BKS + comparison.truth_BKS).sum(pixels) + 1)
        weight_K = torch.where(comparison.share_K > 0, comparison.share_K, math.inf).rsqrt()
        cross_BS = weight_K[comparison.truth_BKS.argmax(1)] * self._power(entropy(comparison))
        return self.dice * self._power(-dice_K.log()).mean() + self.cross * comparison.mean(cross_BS)

    def _power(self, value: Tensor) -> Tensor:
        # A power below 1 has no finite slope at 0.
        return value.clamp(min=1e-6).pow(self.gamma)
