"""The text of a report's numbers, the same in every form of the report."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

NOTHING = "–"
"""What a table shows where there is no number."""


def number(value: Any) -> float | None:
    """A finite number or None: report.json has null where a report in memory can have NaN."""
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


def fixed(value: float | None, places: int = 4) -> str:
    """Scores, with the same digits everywhere so that they can be compared down a column."""
    return NOTHING if value is None else f"{value:.{places}f}"


def signed(value: float | None) -> str:
    """A drop; + is worse."""
    return NOTHING if value is None else f"{value:+.4f}"


def times(value: float | None) -> str:
    """A ratio."""
    return NOTHING if value is None else f"{value:.2f}×"


def large(value: float | None) -> str:
    """Parameters and multiply-accumulates: 31.0 M."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value is not None and abs(value) >= size:
            return f"{amount(value / size)} {unit}"
    return NOTHING if value is None else f"{value:.0f}"


def lasted(seconds: float | None) -> str:
    """How long a step took: 0.4 s, 12 s, 4 min, 2 h 5 min."""
    if seconds is None:
        return NOTHING
    if seconds < 90:
        return f"{seconds:.{seconds < 10:d}f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def amount(value: float | None) -> str:
    """Milliseconds and megabytes to three digits, never as a power of ten."""
    if value is None or value == 0:
        return NOTHING if value is None else "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
