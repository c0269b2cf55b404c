"""Whether a baseline can do its task at all, asked before anything is built on it.

Legend: K foreground classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError, NotHere
from compress.measure.segmentation import DICE, FEWEST
from compress.measure.skill import REASONS, THRESHOLD
from compress.pipeline.chance import drawn_with_foreground, fit_of

if TYPE_CHECKING:
    from compress.task import Task

TRIED = 12
"""Test cases with foreground on which a baseline must find something before passes are begun."""
SURE = 5
"""On fewer a fair network may find nothing by chance; no gate on a drop holds on so few anyway."""


def refuse_without(task: Task, judged: bool, log: Callable[[str], None]) -> None:
    """Stop before any pass if the baseline cannot do its task: it finds nothing, or what it finds is chance.

    Args:
        judged: whether a gate reads its Dice; where none does, or cases are few (`SURE`), it is only told.

    Raises:
        DataError: if its Dice is 0, no better with its cases' own masks than with others', or far better with masks
            that are mirrored or turned.
    """
    if not _refuse_blind(task, judged, log):
        refuse_chance(task, judged, log)


def refuse_chance(task: Task, judged: bool, log: Callable[[str], None]) -> None:
    """Stop, or tell, if what the baseline finds is chance; see `refuse_without`."""
    fit = fit_of(task)
    if fit is None or fit.fault is None:
        return
    # A weak baseline may look like chance on few cases, on which no gate on a drop holds anyway.
    if judged and (fit.turned is not None or fit.cases >= FEWEST):
        raise DataError(f"{task.data.source}: {fit.fault}")
    log(fit.fault)


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
    likely = f"{told}; {REASONS}{f'; {THRESHOLD}' if _at_half(task) else ''}"
    if judged and tried >= SURE:
        raise DataError(f"{task.data.source}: {likely}")
    log(likely)
    return True


def _at_half(task: Task) -> bool:
    """Whether its one logit is on above a probability of 0.5."""
    return task.logits == 1 and task.postprocess.threshold(task.logits) == 0.5


def _dice(task: Task) -> Iterator[NDArray[np.float64]]:
    """The Dice of each class (K) on test cases with foreground, `TRIED` at most, drawn by the seed."""
    from export.backends.torch import infer_from_module

    infer = infer_from_module(task.net)
    for (case, _), _ in zip(drawn_with_foreground(task), range(TRIED), strict=False):
        yield task.score(infer, case, surfaces=False).values_KM[:, DICE]
