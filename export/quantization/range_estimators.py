"""How a range for 8-bit integers is taken from the histogram of an activation.

A wider range clips fewer values, a narrower one has finer steps (Krishnamoorthi 2018, arXiv 1806.08342; Nagel et al.
2021, arXiv 2106.08295).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from export.quantization.observers import Counts, Histogram
from export.quantization.scales import Range


class RangeEstimator(Protocol):
    """The range that integers are to cover, from what was observed."""

    def __call__(self, observed: Histogram) -> Range: ...


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """The range with `percent` of the values: half of the rest above, half below; all above if nothing is negative."""

    percent: float

    def __call__(self, observed: Histogram) -> Range:
        counts, centres, (lowest, highest) = observed.counts, observed.centres, observed.range
        share = np.cumsum(counts) / counts.sum()
        outside = 1 - self.percent / 100
        one_sided = lowest >= 0
        low = lowest if one_sided else centres[np.searchsorted(share, outside / 2)]
        top = int(np.searchsorted(share, 1 - (outside if one_sided else outside / 2)))
        return float(low), float(min(centres[min(top, len(centres) - 1)] + observed.width / 2, highest))


def least_squared_error(observed: Histogram) -> Range:
    """The range whose 256 levels have the least squared error: one end is moved in, then the other."""
    lowest, highest = min(observed.range[0], 0.0), max(observed.range[1], 0.0)
    shares = np.linspace(1.0, 0.1, 181)
    error = _SquaredError(observed)
    low, high = lowest, highest
    for _ in range(2):
        ends = shares * highest
        high = float(ends[error(np.full_like(ends, low), ends).argmin()])
        ends = shares * lowest
        low = float(ends[error(ends, np.full_like(ends, high)).argmin()])
    return low, high


class _SquaredError:
    """The squared error of ranges, from sums over the histogram: the same work for any number of parts."""

    def __init__(self, observed: Histogram) -> None:
        counts, self.centres = observed.counts, observed.centres
        powers = np.stack([counts, counts * self.centres, counts * self.centres**2])
        self.sums = np.concatenate([np.zeros((3, 1)), powers.cumsum(1)], axis=1)

    def __call__(self, low: Counts, high: Counts) -> Counts:
        """Of each of several ranges; values inside lose up to half a step evenly, those outside their distance."""
        below = self.sums[:, self.centres.searchsorted(low)]
        until = self.sums[:, self.centres.searchsorted(high, "right")]
        step = np.maximum(high - low, 1e-12) / 255
        return step**2 / 12 * (until[0] - below[0]) + _about(below, low) + _about(self.sums[:, -1:] - until, high)


def _about(sums: Counts, point: Counts) -> Counts:
    """The sum of squared distances to a point, from count, sum and sum of squares."""
    return np.maximum(sums[2] - 2 * point * sums[1] + point**2 * sums[0], 0.0)


def least_divergence(observed: Histogram) -> Range:
    """The range whose levels keep the most information, by the Kullback-Leibler divergence.

    Migacz, "8-bit Inference with TensorRT", GTC 2017: for each threshold, the clipped distribution
    is compared with itself after rounding to the integer levels. Both signs share one threshold.
    """
    lowest, highest = observed.range
    levels = 256 if lowest >= 0 else 128
    size = observed.sizes
    # The zeros that a ReLU makes say nothing about the threshold, and outnumber everything else.
    size[0] = size[1]
    # The last step to the end may be a shorter one.
    best = min((*range(levels, len(size), 8), len(size)), key=lambda bins: _divergence(size, bins, levels))
    threshold = best * observed.width
    return float(max(lowest, -threshold)), float(min(highest, threshold))


def _divergence(size: Counts, bins: int, levels: int) -> float:
    inside = size[:bins].copy()
    clipped = inside.copy()
    clipped[-1] += size[bins:].sum()
    level = np.arange(bins) * levels // bins
    filled = inside > 0
    total = np.bincount(level, weights=inside, minlength=levels)
    members = np.bincount(level, weights=filled, minlength=levels)
    rounded = np.where(filled, (total / np.maximum(members, 1))[level], 0)
    if clipped.sum() == 0 or rounded.sum() == 0:
        return np.inf
    p, q = clipped / clipped.sum(), rounded / rounded.sum()
    both = p > 0
    # Where rounding left nothing (only the clipped mass in the last bin), a small share stands in.
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-9))).sum())
