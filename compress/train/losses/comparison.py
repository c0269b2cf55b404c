"""What every loss compares: logits with the mask, and what of it a loss is.

Legend: B batch, K classes, S one or more axes of pixels (2-D and 3-D alike).
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Protocol

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from torch import Tensor

OPTIONS = ConfigDict(extra="forbid")


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Of this loss in a sum."""


@plain_dataclass(frozen=True, kw_only=True)
class Comparison:
    """What every loss compares, in float32; ignored pixels are 0 in `probability_BKS` and in `truth_BKS`."""

    logits_BKS: Tensor
    """At least two classes: one logit has become a softmax against a logit of zero."""
    probability_BKS: Tensor
    """The softmax of the logits."""
    truth_BKS: Tensor
    """The mask, one-hot."""
    index_BS: Tensor
    """The mask as class indices; ignored pixels hold -100."""
    counted_BS: Tensor
    """1 where a pixel counts, 0 where it is ignored."""
    share_K: Tensor | None
    """The share of each class in the train masks, where a loss asked for it."""

    def mean(self, value_BS: Tensor) -> Tensor:
        """Over the pixels that count; 0 where none does."""
        return (value_BS * self.counted_BS).sum() / self.counted_BS.sum().clamp(min=1)


class Loss(Protocol):
    """One term of the sum: loss(comparison), smaller for a better answer."""

    @property
    def weight(self) -> float: ...
    def __call__(self, comparison: Comparison) -> Tensor: ...


def compared(logits_BKS: Tensor, mask_BS: Tensor, ignore: int | None, share_K: Tensor | None = None) -> Comparison:
    """Logits and mask as every loss wants them."""
    logits_BKS = logits_BKS.float()
    if logits_BKS.shape[1] == 1:
        # A sigmoid is a softmax against a logit of zero.
        logits_BKS = torch.cat([torch.zeros_like(logits_BKS), logits_BKS], dim=1)
    counted_BS = torch.ones_like(mask_BS, dtype=torch.bool) if ignore is None else mask_BS != ignore
    truth_BKS = F.one_hot(torch.where(counted_BS, mask_BS, 0), logits_BKS.shape[1]).movedim(-1, 1)
    counted_B1S = counted_BS[:, None]
    return Comparison(
        logits_BKS=logits_BKS,
        probability_BKS=logits_BKS.softmax(1) * counted_B1S,
        truth_BKS=(truth_BKS * counted_B1S).float(),
        index_BS=torch.where(counted_BS, mask_BS, -100),
        counted_BS=counted_BS.float(),
        share_K=share_K,
    )
