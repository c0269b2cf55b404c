"""Losses of the overlap of answer and mask; MONAI's.

Legend: B batch, K classes, S one or more axes of pixels (2-D and 3-D alike).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from compress.train.losses.comparison import OPTIONS, Comparison, Weight


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Dice:
    """1 - soft Dice of the foreground classes (Milletari et al. 2016, arXiv 1606.04797)."""

    weight: Weight = 1.0
    over: Literal["batch", "case"] = "batch"
    """batch: one fraction over all of its cases, so that one without the class weighs nothing extra. case: one for
    each, as it is scored: small structures weigh as much as large ones, and where there is none, none is learnt."""

    def __call__(self, comparison: Comparison) -> Tensor:
        from monai.losses import DiceLoss

        lose = DiceLoss(include_background=False, batch=self.over == "batch", smooth_nr=1.0, smooth_dr=1.0)
        return lose(comparison.probability_BKS, comparison.truth_BKS)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneralizedDice:
    """Dice over all classes at once, each weighed by 1 / area^2 (Sudre et al. 2017, arXiv 1707.03237)."""

    weight: Weight = 1.0

    def __call__(self, comparison: Comparison) -> Tensor:
        from monai.losses import GeneralizedDiceLoss

        # Areas of 10^5 pixels make terms of 10^-5: MONAI's default smoothing would outweigh them.
        lose = GeneralizedDiceLoss(include_background=True, batch=True, smooth_nr=1e-12, smooth_dr=1e-12)
        return lose(comparison.probability_BKS, comparison.truth_BKS)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Tversky:
    """Dice with a price for each kind of error (Salehi et al. 2017, arXiv 1706.05721); alpha 0.5 is Dice."""

    weight: Weight = 1.0
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """Price of a false positive."""
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Price of a false negative; None: 1 - alpha."""

    @model_validator(mode="after")
    def _some_price(self) -> Self:
        if self.beta is None and self.alpha > 1:
            raise ValueError(f"alpha {self.alpha:g} leaves 1 - alpha below 0 for beta; give beta, or alpha up to 1")
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta are both 0: no error would cost anything")
        return self

    def __call__(self, comparison: Comparison) -> Tensor:
        from monai.losses import TverskyLoss

        beta = 1 - self.alpha if self.beta is None else self.beta
        lose = TverskyLoss(
            include_background=False, batch=True, alpha=self.alpha, beta=beta, smooth_nr=0.5, smooth_dr=0.5
        )
        return lose(comparison.probability_BKS, comparison.truth_BKS)
