"""Training losses; MONAI's where it has them. Legend: B batch, K classes, H height, W width."""

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn


class DiceCrossEntropy(nn.Module):
    """Soft Dice plus cross entropy, with an ignore index; loss = DiceCrossEntropy()(logits_BKHW, mask_BHW).

    One logit is read as a sigmoid's (background below 0), more as a softmax over classes.
    """

    def __init__(self, ignore: int | None = None) -> None:
        super().__init__()
        self.ignore = -100 if ignore is None else ignore
        # Batch Dice: one fraction over the batch, so that a case without the class weighs nothing extra.
        self.dice = DiceLoss(include_background=False, softmax=False, batch=True, smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits_BKHW: Tensor, mask_BHW: Tensor) -> Tensor:
        logits_BKHW = logits_BKHW.float()
        if logits_BKHW.shape[1] == 1:
            # log(1 + e^z) twice over: a sigmoid is a softmax against a logit of zero.
            logits_BKHW = torch.cat([torch.zeros_like(logits_BKHW), logits_BKHW], dim=1)
        counted = (mask_BHW != self.ignore)[:, None]
        truth_BKHW = F.one_hot(torch.where(counted[:, 0], mask_BHW, 0), logits_BKHW.shape[1]).movedim(-1, 1)
        dice: Tensor = self.dice(logits_BKHW.softmax(1) * counted, truth_BKHW * counted)
        return dice + F.cross_entropy(logits_BKHW, mask_BHW, ignore_index=self.ignore)
