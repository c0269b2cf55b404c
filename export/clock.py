"""Inferences timed one after the other, where they run: here, or on a device reached over SSH (Python 3.8)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Callable, List

Run = Callable[[int], object]
"""Does one inference, on the input with this number."""


@dataclass(frozen=True)
class Turn:
    """Some inferences in a row."""

    first: int
    """Number of the first timed one's input; the next takes the next input."""
    count: int
    """How many are timed."""
    untimed: int = 0
    """How many come before them, on the first's input."""
    seconds: float = math.inf
    """No other is begun when so much time is gone since the first timed one was."""


Clock = Callable[[Turn], List[float]]
"""Takes a turn; gives the milliseconds of each timed inference, on the device that ran it."""


def timed(run: Run, turn: Turn) -> list[float]:
    """The milliseconds of each inference of a turn in this process."""
    for _ in range(turn.untimed):
        run(turn.first)
    begun = time.perf_counter()
    times_ms: list[float] = []
    while len(times_ms) < turn.count and time.perf_counter() - begun < turn.seconds:
        start = time.perf_counter()
        run(turn.first + len(times_ms))
        times_ms.append((time.perf_counter() - start) * 1000)
    return times_ms
