"""Percentiles of time against a bound: too few samples never hold one, and can exclude it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from compress.gates.judging.non_inferiority import LEVEL
from compress.gates.judging.verdict import Bound, Outcome, inconclusive
from compress.measure.latency import limits, samples_for

Times = Mapping[str, Any]
"""`Samples.as_dict()`, in ms."""


def time_outcome(bound: Bound, percentile: int, times: Times) -> Outcome:
    """What a percentile of an artifact's time is found to be."""
    fastest, _ = limits(times, percentile, LEVEL)
    over = f"p{percentile} is at least {fastest:.4g} ms (95 % confidence)" if fastest > bound.limit else None
    return _unless_few(bound.outcome(times[f"p{percentile}"]), percentile, [times], over)


def ratio_outcome(bound: Bound, percentile: int, before: Times, now: Times) -> Outcome:
    """What the ratio of a percentile of two artifacts' times is found to be; above 1, the second is faster."""
    value = before[f"p{percentile}"] / now[f"p{percentile}"]
    # Two limits that must hold together are each allowed half the error.
    level = 1 - (1 - LEVEL) / 2
    fastest, slowest = limits(now, percentile, level)[0], limits(before, percentile, level)[1]
    most = slowest / fastest if fastest > 0 else math.inf
    under = f"the ratio is at most {most:.3g} (95 % confidence)" if most < bound.limit else None
    return _unless_few(bound.outcome(value), percentile, [now, before], under)


def _unless_few(enough: Outcome, percentile: int, times: Sequence[Times], excluded: str | None) -> Outcome:
    """The outcome, where there are samples enough for it; else what the few say against the bound, if anything.

    Args:
        excluded: how they exclude the bound; None if they do not.
    """
    fewest, needed = min(each["n"] for each in times), samples_for(percentile)
    if fewest >= needed:
        return enough
    few = f"p{percentile} needs {needed} samples, there are {fewest}"
    if excluded:
        return replace(enough, ruling="fails", reason=f"{few}, which exclude the limit: {excluded}")
    return replace(inconclusive(f"{few}: raise latency samples, or seconds"), value=enough.value)
