"""The paired drop: how much worse each case has become from one network to another.

Legend: N cases, K foreground classes.
"""

from __future__ import annotations

import math

import numpy as np

from compress.gates.judging.non_inferiority import LEVEL, Drop, Values, lower_and_upper_limit
from compress.measure.segmentation import DISTANCES, METRICS, Scores

COLLAPSE = 0.10
"""A case that loses more Dice than this has collapsed, whatever the mean says."""


def paired_drop(before: Scores, after: Scores, class_name: str | None, metric: str, level: float = LEVEL) -> Drop:
    """The drop of a metric (of a distance, the rise) from one network to another on the same cases.

    The cases of one patient are averaged first: a patient with many frames weighs no more than one with one.

    Args:
        class_name: None averages the foreground classes of each case first.
        level: confidence of each of its limits.
    """
    drops_N = case_drops(before, after, class_name, metric)
    defined = ~np.isnan(drops_N)
    drops_N = drops_N[defined]
    units = np.asarray(after.units)[defined]
    per_unit = np.asarray([drops_N[units == unit].mean() for unit in dict.fromkeys(units)])
    if len(per_unit) == 0:
        return Drop(mean=math.nan, upper=math.nan, n=0, collapsed=0)
    lower, upper = lower_and_upper_limit(per_unit, level)
    return Drop(
        mean=float(per_unit.mean()),
        upper=upper,
        n=len(per_unit),
        collapsed=0 if _is_distance(metric) else collapsed(per_unit),
        lower=lower,
    )


def case_drops(before: Scores, after: Scores, class_name: str | None, metric: str) -> Values:
    """How much worse each case became (N); NaN where neither network nor truth has the class, or any class.

    Args:
        class_name: None averages the foreground classes of each case.
    """
    assert before.cases == after.cases
    names = after.class_names if class_name is None else (class_name,)
    drops_NK = np.stack([_worse(before, after, name, metric) for name in names], axis=1)
    drops_N = np.full(len(drops_NK), math.nan)
    defined = ~np.isnan(drops_NK).all(axis=1)
    drops_N[defined] = np.nanmean(drops_NK[defined], axis=1)
    return drops_N


def collapsed(drops_N: Values) -> int:
    """How many cases lose more than `COLLAPSE`."""
    return int((drops_N > COLLAPSE).sum())


def _worse(before: Scores, after: Scores, class_name: str, metric: str) -> Values:
    """Per case (N), how much worse it became; NaN where neither network nor truth has the class."""
    was, now = pairs(before.column(class_name, metric), after.column(class_name, metric), metric)
    return now - was if _is_distance(metric) else was - now


def pairs(was_N: Values, now_N: Values, metric: str) -> tuple[Values, Values]:
    """A metric of each case before and after; both NaN where neither network nor truth has the class.

    A case is never dropped from one arm only: where one arm is undefined (nothing there, nothing
    predicted: right) and the other is not, the undefined one counts as perfect.
    """
    perfect = 0.0 if _is_distance(metric) else 1.0
    either_N = ~(np.isnan(was_N) & np.isnan(now_N))
    was_N, now_N = (np.where(either_N & np.isnan(arm_N), perfect, arm_N) for arm_N in (was_N, now_N))
    return was_N, now_N


def _is_distance(metric: str) -> bool:
    return METRICS.index(metric) in DISTANCES
