"""Which of several outputs of a network is the final one: the one that fits the masks best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from compress.errors import SegpressError
from compress.measure.segmentation import DICE
from compress.task import Task
from export.backends.torch import infer_from_module

TRIED = 4
"""Cases on which outputs are compared."""
NEAR = 0.01
"""Dice by which the best must be ahead, to be told from the others."""


def which_fits(outputs: Sequence[str], task_of: Callable[[str], Task]) -> str:
    """The Dice of each output on a few cases, and which is best; or why they could not be scored.

    Args:
        task_of: the data and the trained network that answers with this output.
    """
    scores: dict[str, float] = {}
    tried = 0
    try:
        for output in outputs:
            scores[output], tried = _dice_of(task_of(output))
    except SegpressError as error:
        return f"which one fits could not be scored ({error})"
    told = ", ".join(f"'{output}' {score:.3f}" for output, score in scores.items())
    best = max(scores, key=scores.__getitem__)
    if sum(score > scores[best] - NEAR for score in scores.values()) > 1:
        return f"mean Dice on {tried} cases: {told}: they fit alike"
    return f"mean Dice on {tried} cases: {told}: head: {{output: {best}}} fits best"


def _dice_of(task: Task) -> tuple[float, int]:
    """Mean Dice over a few cases and all of their classes, and how many cases there were."""
    roles = (task.data.cases[role] for role in ("val", "test", "train"))
    cases = next((cases for cases in roles if cases), ())[:TRIED]
    infer = infer_from_module(task.net)
    dice = np.asarray([task.score(infer, case, surfaces=False).values_KM[:, DICE] for case in cases])
    known = dice[np.isfinite(dice)]
    return (float(known.mean()) if known.size else 0.0), len(cases)
