"""Losses that grow with the distance to the true border.

Legend: B batch, K classes, S one or more axes of pixels (2-D and 3-D alike).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy import ndimage
from torch import Tensor

from compress.train.losses.comparison import OPTIONS, Comparison, Weight


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Boundary:
    """Foreground probability times the signed distance to the true border (Kervadec et al. 2019, arXiv 1812.07032).

    In pixels, negative inside; it says nothing where a class is absent, so it is added to another loss.
    """

    weight: Weight = 1.0

    def __call__(self, comparison: Comparison) -> Tensor:
        foreground = comparison.truth_BKS[:, 1:].cpu().numpy() > 0.5
        distance_BKS = np.stack([[signed_distance(mask_S) for mask_S in masks] for masks in foreground])
        distance = torch.from_numpy(distance_BKS).to(comparison.probability_BKS)
        return comparison.mean((comparison.probability_BKS[:, 1:] * distance).mean(1))


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Hausdorff:
    """Squared errors times distance to the true and the predicted border (Karimi & Salcudean 2019, arXiv 1904.10030).

    In pixels^alpha: beside another loss, give it a small weight.
    """

    weight: Weight = 1.0
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """Power of the distances."""

    def __call__(self, comparison: Comparison) -> Tensor:
        from monai.losses import HausdorffDTLoss

        return HausdorffDTLoss(alpha=self.alpha, include_background=False)(
            comparison.probability_BKS, comparison.truth_BKS
        )


def signed_distance(mask_S: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the border in pixels, negative inside, 0 on the mask's own edge; 0 for an empty or full mask."""
    if not mask_S.any() or mask_S.all():
        return np.zeros(mask_S.shape, np.float32)
    inside, outside = ndimage.distance_transform_edt(mask_S), ndimage.distance_transform_edt(~mask_S)
    return np.where(mask_S, 1 - inside, outside).astype(np.float32)
