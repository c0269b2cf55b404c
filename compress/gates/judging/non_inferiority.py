"""The non-inferiority test: a drop holds if the upper limit of its one-sided 95 % interval lies under the margin.

Legend: N independent cases, S samples of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from compress.gates.judging.verdict import Ruling
from compress.measure.segmentation import FEWEST, RELEASE

Values = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000
MOST_CASES = 20_000
"""More test cases than this nobody has."""


@dataclass(frozen=True, kw_only=True)
class Drop:
    """The paired drop of one class: its mean, its limits, and on how many independent cases."""

    mean: float
    upper: float
    n: int
    collapsed: int
    """Cases that lose more than `COLLAPSE`; of a distance none."""
    lower: float = -math.inf
    """One-sided, like `upper`; shown, never judged."""


def rule(drop: Drop, margin: float) -> tuple[Ruling, str]:
    """What may be said of a drop against its margin, and why; of one that is inconclusive, what would decide it."""
    label = "release" if drop.n >= RELEASE else "screening"
    if not math.isfinite(drop.mean):
        return "inconclusive", f"{drop.n} cases have this class"
    if drop.mean > margin:
        sure = ": the lower limit is past the margin too" if drop.lower > margin else ""
        return "fails", f"{label}, {drop.n} cases{sure}"
    if drop.n < FEWEST:
        return "inconclusive", f"only {drop.n} cases; {FEWEST} are needed{_more_cases(drop, margin)}"
    if drop.upper < margin:
        return "holds", f"{label}, {drop.n} cases"
    near = f"the upper limit is not under the margin{_more_cases(drop, margin)}"
    return "inconclusive", f"{label}, {drop.n} cases: {near}"


def _more_cases(drop: Drop, margin: float) -> str:
    """How many more cases like these would bring the upper limit, which nears the mean as 1/√n, under the margin."""
    if not math.isfinite(drop.upper):
        return ""
    above, room = drop.upper - drop.mean, margin - drop.mean
    needed = max(FEWEST, drop.n * (above / room) ** 2) if room > 0 else math.inf
    if needed > MOST_CASES:
        return f"; the mean, {drop.mean:.4f}, is too near the margin, {margin:g}, for more cases to decide it"
    return f"; about {in_two_digits(needed - drop.n)} more like these would decide it"


def in_two_digits(more: float) -> int:
    """A number of cases that are lacking, at least one, rounded up to the digits that it is worth."""
    # The spread is itself an estimate.
    least = max(1, math.ceil(more))
    unit = 10 ** max(0, len(str(least)) - 2)
    return math.ceil(least / unit) * unit


def upper_limit(drops_N: Values, level: float = LEVEL) -> float:
    """One-sided upper limit of the mean of independent paired drops; infinite for fewer than two.

    The largest of three: the percentile bootstrap (10,000 resamples, fixed seed), Student's t, and
    Johnson's t corrected for skewness (J. Am. Stat. Assoc. 73:536, 1978). At the margin and n =
    149 the first two pass 7 % of exponential drops and 12 % of those where few cases lose much;
    with the third both are under 6 % (simulated in tests/test_non_inferiority.py).
    """
    return float(upper_limits(drops_N[None], level)[0]) if len(drops_N) > 1 else math.inf


def upper_limits(drops_SN: Values, level: float = LEVEL) -> Values:
    """`upper_limit` of S samples of N drops each (S)."""
    percentile = np.quantile(_resampled(drops_SN), level, axis=1)
    return np.maximum(percentile, _parametric(drops_SN, level))


def lower_and_upper_limit(drops_N: Values, level: float = LEVEL) -> tuple[float, float]:
    """`upper_limit`, and before it the lower one, which is that of the gains; infinite for fewer than two drops."""
    if len(drops_N) < 2:
        return -math.inf, math.inf
    drops_SN = drops_N[None]
    # Resamples are four fifths of the time, and those of the gains are these with another sign.
    low, high = np.quantile(_resampled(drops_SN)[0], (1 - level, level))
    lower, upper = -_parametric(-drops_SN, level)[0], _parametric(drops_SN, level)[0]
    return float(min(low, lower)), float(max(high, upper))


def _resampled(drops_SN: Values) -> Values:
    """The mean of each of the `RESAMPLES` of each sample."""
    return drops_SN @ _resampling(drops_SN.shape[1]).T


def _parametric(drops_SN: Values, level: float) -> Values:
    """The larger of Student's and Johnson's limit (S)."""
    n = drops_SN.shape[1]
    mean, spread = drops_SN.mean(axis=1), drops_SN.std(axis=1, ddof=1)
    t = float(stdtrit(n - 1, level))
    student = mean + t * spread / math.sqrt(n)
    # Where all drops are equal there is no skewness, and the limit is their mean.
    third, cube = ((drops_SN - mean[:, None]) ** 3).mean(axis=1), drops_SN.std(axis=1) ** 3
    skewness = np.divide(third, cube, out=np.zeros_like(mean), where=cube > 0)
    johnson = student + skewness * (1 + 2 * t**2) * spread / (6 * n)
    return np.maximum(student, johnson)


@lru_cache(maxsize=8)
def _resampling(n: int) -> Values:
    """Bootstrap weights: each row averages one resample of n cases; the same for every artifact."""
    return np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
