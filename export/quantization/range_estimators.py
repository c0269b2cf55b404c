"""How a range for 8-bit integers is taken from the histogram of an activation.

A wider range clips fewer values, a narrower one has finer steps (Krishnamoorthi 2018, arXiv 1806.08342; Nagel et al.
2021, arXiv 2106.08295).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from export.quantization.observers import BINS, Counts, Histogram
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
        return float(low), float(min(centres[min(top, BINS - 1)] + (centres[1] - centres[0]) / 2, highest))


def least_squared_error(observed: Histogram) -> Range:
    """The range whose 256 levels have the least squared error: one end is moved in, then the other."""
    counts, centres, (lowest, highest) = observed.counts, observed.centres, observed.range

    squares = np.empty(BINS)

    def error(low: float, high: float) -> float:
        step = max(high - low, 1e-12) / 255
        first, last = centres.searchsorted(low), centres.searchsorted(high, "right")
        # Values inside lose up to half a step evenly; those outside, their distance to the end.
        squares[first:last] = step**2 / 12
        squares[:first] = (low - centres[:first]) ** 2
        squares[last:] = (centres[last:] - high) ** 2
        return float((counts * squares).sum())

    low, high = min(lowest, 0.0), max(highest, 0.0)
    shares = np.linspace(1.0, 0.1, 181)
    for _ in range(2):
        high = min((share * max(highest, 0.0) for share in shares), key=lambda end: error(low, end))
        low = min((share * min(lowest, 0.0) for share in shares), key=lambda end: error(end, high))
    return float(low), float(high)


def least_divergence(observed: Histogram) -> Range:
    """The range whose levels keep the most information, by the Kullback-Leibler divergence.

    Migacz, "8-bit Inference with TensorRT", GTC 2017: for each threshold, the clipped distribution
    is compared with itself after rounding to the integer levels. Both signs share one threshold.
    """
    counts, centres, (lowest, highest) = observed.counts, observed.centres, observed.range
    levels = 256 if lowest >= 0 else 128
    size = np.histogram(np.abs(centres), bins=BINS, range=(0, max(-lowest, highest)), weights=counts)[0]
    # The zeros that a ReLU makes say nothing about the threshold, and outnumber everything else.
    size[0] = size[1]
    best = min(range(levels, BINS + 1, 8), key=lambda bins: _divergence(size, bins, levels))
    threshold = best / BINS * max(-lowest, highest)
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
