"""From logits at the network's size to labels at the image's own.

Legend: K classes, h and w the network's height and width, H and W the image's (of volumes, depth before them).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compress.data.dataset.tiles import Size

Way = Literal["probabilities", "labels"]
"""What is brought back to the image's size: probabilities (linearly), or labels (nearest neighbour)."""
Logits = NDArray[np.float32]
Least = NDArray[np.float32]
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def labels_at(logits_Khw: Logits, size: Size) -> NDArray[np.uint8]:
    """The class of every pixel of a larger or smaller image (HW): probabilities are interpolated, the largest wins."""
    return labels_of(probabilities(logits_Khw), size)


def labels_of(probabilities_Khw: Tensor, size: Size, least_K: Least | None = None) -> NDArray[np.uint8]:
    """The class of every pixel of an image (HW), by probabilities of another size or of the same.

    Interpolation is torch's with align_corners=False, which is OpenCV's: pixels are areas. One class after the other
    is enlarged, so that memory does not grow with the classes.

    Args:
        probabilities_Khw: of all classes, which sum to 1, or the one of a sigmoid (K = 1); float32.
        least_K: the probability that each class needs, background first (which needs none). Of one foreground class
            that above which it is taken, the largest or not; of several the least with which the largest wins, and
            background takes the pixel otherwise. None: the largest wins, and a sigmoid's above 0.5.
    """
    if len(probabilities_Khw) == 1 or (len(probabilities_Khw) == 2 and least_K is not None):
        on_HW = _interpolated(probabilities_Khw[-1], size)
        return (on_HW > (0.5 if least_K is None else least_K[-1].item())).numpy().astype(np.uint8)
    first_hw, *others = probabilities_Khw
    best_HW = _interpolated(first_hw, size).numpy()
    labels_HW = np.zeros(size, np.uint8)
    for index, probability_hw in enumerate(others, start=1):
        enlarged_HW = _interpolated(probability_hw, size).numpy()
        # As argmax: of equal ones the first. Indices rise, so that a product and a maximum set them, much faster than
        # a mask does.
        won_HW = (enlarged_HW > best_HW).view(np.uint8)
        np.maximum(labels_HW, won_HW * np.uint8(index), out=labels_HW)
        np.maximum(best_HW, enlarged_HW, out=best_HW)
    if least_K is not None:
        labels_HW[best_HW < least_K[labels_HW]] = 0
    return labels_HW


def probabilities(logits_Khw: Logits) -> Tensor:
    """Softmax, or of a single logit its sigmoid (Khw float32).

    Exponentials are rounded from float64: single-precision ones differ in last bits between instruction sets.
    """
    logits = torch.from_numpy(np.ascontiguousarray(logits_Khw, np.float32))
    if len(logits) == 1:
        return torch.sigmoid(logits.double()).float()
    highest = logits.amax(0)
    powers = torch.stack([torch.exp((one - highest).double()).float() for one in logits])
    total = powers[0].clone()
    for one in powers[1:]:
        # In this order on every processor.
        total += one
    return powers.div_(total)


def _interpolated(values_hw: Tensor, size: Size) -> Tensor:
    """A new tensor of this size (HW)."""
    if values_hw.shape == size:
        return values_hw.clone()
    return F.interpolate(values_hw[None, None], size, mode=_LINEAR[len(size)], align_corners=False)[0, 0]
