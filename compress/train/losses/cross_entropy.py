"""Cross entropy, its pixels weighing alike, by their class, by how narrow a gap they lie in, or by how wrong they are.

Legend: B batch, K classes, S one or more axes of pixels (2-D and 3-D alike).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from scipy import ndimage
from torch import Tensor

from compress.train.losses.comparison import OPTIONS, Comparison, Weight


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class CE:
    """Cross entropy, each class weighing the same or as told."""

    weight: Weight = 1.0
    balance: Literal["none", "frequency"] = "none"
    """frequency: a class weighs in inverse proportion to its share of the train masks' pixels."""
    class_weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    """One number for each class, background first."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.balance != "none" and self.class_weights is not None:
            raise ValueError("balance and class_weights are both given; give one")
        return self

    def __call__(self, comparison: Comparison) -> Tensor:
        if self.balance == "none" and self.class_weights is None:
            if not comparison.counted_BS.any():
                # torch's mean over no pixels is 0 / 0.
                return comparison.logits_BKS.sum() * 0
            return F.cross_entropy(comparison.logits_BKS, comparison.index_BS)
        weight_BS = _class_weights(self, comparison) * comparison.counted_BS
        return (entropy(comparison) * weight_BS).sum() / weight_BS.sum().clamp(min=torch.finfo().tiny)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DistanceCE:
    """U-Net's cross entropy, heavier in narrow gaps between objects (Ronneberger et al. 2015, eq. 2).

    w = w_class + border * exp(-(d1 + d2)^2 / (2 sigma^2)), the second term in the background only; d1
    and d2 are the distances to the nearest and the second nearest object, a connected part of a class.
    """

    weight: Weight = 1.0
    border: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """The paper's w_0."""
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """In pixels."""
    balance: Literal["none", "frequency"] = "frequency"
    """frequency: a class weighs in inverse proportion to its share of the train masks' pixels."""

    def __call__(self, comparison: Comparison) -> Tensor:
        index_BS = torch.where(comparison.counted_BS > 0, comparison.index_BS, 0).cpu().numpy()
        gaps = np.stack([gap_weights(index_S, self.sigma) for index_S in index_BS])
        gap_BS = torch.from_numpy(gaps).to(comparison.logits_BKS)
        return comparison.mean(entropy(comparison) * (_class_weights(self, comparison) + self.border * gap_BS))


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Focal:
    """Cross entropy in which pixels that are right already count less (Lin et al. 2017, arXiv 1708.02002)."""

    weight: Weight = 1.0
    # Below 1 the slope of (1 - p)^gamma has no bound at p = 1.
    gamma: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weight of the foreground classes, the background's being 1 - alpha; None: 1 for all."""

    def __call__(self, comparison: Comparison) -> Tensor:
        from monai.losses import FocalLoss

        lose = FocalLoss(use_softmax=True, gamma=self.gamma, alpha=self.alpha, reduction="none")
        return comparison.mean(lose(comparison.logits_BKS, comparison.truth_BKS).sum(1))


def entropy(comparison: Comparison) -> Tensor:
    """-log of the true class's probability at every pixel (BS); 0 where it is ignored."""
    return F.cross_entropy(comparison.logits_BKS, comparison.index_BS, reduction="none")


def _class_weights(loss: CE | DistanceCE, comparison: Comparison) -> Tensor:
    """The weight of every pixel's true class (BS); over the train masks it is 1 on average when balanced."""
    given = getattr(loss, "class_weights", None)
    if given is not None:
        weight_K = torch.tensor(given).to(comparison.logits_BKS)
    elif loss.balance == "frequency":
        assert comparison.share_K is not None
        share_K = torch.where(comparison.share_K > 0, comparison.share_K, math.inf)
        weight_K = 1 / (share_K * (comparison.share_K > 0).sum())
    else:
        return torch.ones_like(comparison.counted_BS)
    return weight_K[comparison.truth_BKS.argmax(1)]


def gap_weights(index_S: NDArray[np.integer[Any]], sigma: float) -> NDArray[np.float32]:
    """exp(-(d1 + d2)^2 / (2 sigma^2)) in the background, d1 and d2 being the distances to the two nearest objects."""
    # Farther than this a second object adds less than 1e-7.
    reach = math.ceil(6 * sigma)
    nearest, second = np.full((2, *index_S.shape), np.inf)
    for kind in np.unique(index_S[index_S > 0]):
        objects, _ = ndimage.label(index_S == kind)
        for number, box in enumerate(ndimage.find_objects(objects), start=1):
            near = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
            distance = ndimage.distance_transform_edt(objects[near] != number)
            second[near] = np.minimum(second[near], np.maximum(nearest[near], distance))
            nearest[near] = np.minimum(nearest[near], distance)
    weight = np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(index_S == 0, weight, 0).astype(np.float32)
