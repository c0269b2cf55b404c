"""Whether scores are those of a network that can do its task: a drop from one that finds nothing says nothing."""

from __future__ import annotations

import math

import numpy as np

from compress.measure.segmentation import Scores

LITTLE = 0.3
"""A mean foreground Dice below this is told of beside every result."""
NONE = 0.05
"""A Dice below this is near 0: chance alone reaches it."""
REASONS = (
    "likely another normalization than in training, turned or mirrored images or masks (EXIF, axes), another order of "
    "the classes, or masks that hold something else (data masks, ignore)"
)
CHECK = "check its normalization, the orientation, the order of the classes and the masks"
THRESHOLD = (
    "its one logit is on above 0, a threshold of 0.5: for a network that was trained for a threshold t, give "
    "postprocess: [threshold: {at: t}]"
)


def lacking(scores: Scores, class_name: str) -> str | None:
    """Why a drop of this class from these scores says nothing; None where the baseline can do its task."""
    mean = scores.class_mean(class_name, "dice")
    if math.isnan(mean):
        return None
    if mean < NONE:
        return f"the baseline has no skill: its Dice is {mean:.4f}; {CHECK}"
    without = _of_marking_all(scores, class_name)
    if mean <= without + 1e-3:
        return f"the baseline has no skill: its Dice is {mean:.4f}, and marking every pixel has {without:.4f}; {CHECK}"
    return None


def _of_marking_all(scores: Scores, class_name: str) -> float:
    """The mean Dice of calling every pixel the class; -inf where no case tells how much of it there is.

    The share of the class in a case follows from precision p, recall r and the share e of wrong pixels: with h hits of
    n pixels, e n = h (1 / p - 1) + h (1 / r - 1), and the class has h / r pixels.
    """
    precision, recall, wrong = (scores.column(class_name, metric) for metric in ("precision", "recall", "mae"))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = wrong / (recall * (1 / precision + 1 / recall - 2))
    share = share[np.isfinite(share) & (share > 0) & (share <= 1)]
    return float((2 * share / (1 + share)).mean()) if share.size else -math.inf
