"""Whether a baseline can do its task at all: a drop from a network that finds nothing says nothing.

Legend: N cases, K foreground classes, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.chance import drawn_with_foreground, found_in
from compress.errors import DataError, NotHere
from compress.measure import DICE, FEWEST, Scores

if TYPE_CHECKING:
    from compress.task import Task

LITTLE = 0.3
"""A mean foreground Dice below this is told of beside every result."""
NONE = 0.05
"""A Dice below this is near 0: chance alone reaches it."""
TRIED = 12
"""Test cases with foreground on which a baseline must find something before passes are begun."""
SURE = 5
"""On fewer a fair network may find nothing by chance; no gate on a drop holds on so few anyway."""
REASONS = (
    "likely another normalization than in training, turned or mirrored images or masks (EXIF, axes), another order of "
    "the classes, or masks that hold something else (data masks, ignore)"
)
CHECK = "check its normalization, the orientation, the order of the classes and the masks"
THRESHOLD = (
    "its one logit is on above 0, a threshold of 0.5: for a network that was trained for a threshold t, add "
    "-log(t / (1 - t)) to the bias of its last layer"
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


def refuse_without(task: Task, judged: bool, log: Callable[[str], None]) -> None:
    """Stop before any pass if the baseline cannot do its task: it finds nothing, or what it finds is chance.

    Args:
        judged: whether a gate reads its Dice; where none does, or cases are few (`SURE`), it is only told.

    Raises:
        DataError: if its Dice is 0, no better with its cases' own masks than with others', or far better with masks
            that are mirrored or turned.
    """
    found = None if _refuse_blind(task, judged, log) else found_in(task)
    if found is None or found.fault is None:
        return
    # A weak baseline may look like chance on few cases, on which no gate on a drop holds anyway.
    if judged and (found.turned is not None or found.cases >= FEWEST):
        raise DataError(f"{task.data.source}: {found.fault}")
    log(found.fault)


def _refuse_blind(task: Task, judged: bool, log: Callable[[str], None]) -> bool:
    """Whether it finds nothing of what there is on the first few test cases, or cannot be asked."""
    tried = 0
    with suppress(NotHere):
        # Answers that are not finite are told where they are measured.
        for dice_K in _dice(task):
            tried += 1
            if np.nansum(dice_K) > 0:
                return False
    if tried == 0:
        return True
    told = f"the baseline's Dice is 0 on all of {tried} test cases with foreground, so no drop from it says anything"
    likely = f"{told}; {REASONS}{f'; {THRESHOLD}' if task.logits == 1 else ''}"
    if judged and tried >= SURE:
        raise DataError(f"{task.data.source}: {likely}")
    log(likely)
    return True


def _dice(task: Task) -> Iterator[NDArray[np.float64]]:
    """The Dice of each class (K) on test cases with foreground, `TRIED` at most, drawn by the seed."""
    from export.backends.torch import infer_from_module

    infer = infer_from_module(task.net)
    for (case, _), _ in zip(drawn_with_foreground(task), range(TRIED), strict=False):
        yield task.score(infer, case, surfaces=False)[0][:, DICE]
