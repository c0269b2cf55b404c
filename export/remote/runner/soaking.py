"""Running until a device is as warm as it gets: what a fan, a case and a summer's day make of its times."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from export.clock import Run

MINUTE = 60.0
QUIET_MINUTES = 3
WITHIN = 1.0
"""Degrees Celsius: a temperature that stays within them for QUIET_MINUTES has settled."""


@dataclass(frozen=True)
class Soak:
    """How long, and what tells the temperature."""

    minutes: float
    """At most."""
    degrees: Callable[[], float | None]
    """Degrees Celsius now; None where nothing tells."""
    now: Callable[[], float] = time.perf_counter
    """Seconds."""


def soaked(run: Run, soak: Soak) -> dict[str, Any]:
    """Run without pause until the temperature has settled or the minutes are over; what each minute was like."""
    begun = soak.now()
    degrees, minutes = [soak.degrees()], [_minute(run, soak, begun)]
    degrees.append(soak.degrees())
    while not _settled(degrees) and soak.now() - begun < soak.minutes * MINUTE:
        minutes.append(_minute(run, soak, begun))
        degrees.append(soak.degrees())
    medians = [float(np.median(times)) for times in minutes]
    slowest = int(np.argmax(medians))
    return {
        "minutes": (soak.now() - begun) / MINUTE,
        "settled": None if None in degrees else _settled(degrees),
        "warm_p50_ms": medians[-1],
        "warm_p99_ms": float(np.percentile(minutes[-1], 99)),
        "cold_p50_ms": medians[0],
        "slowest_minute": slowest + 1,
        "slowest_p50_ms": medians[slowest],
        "begin_c": degrees[0],
        "end_c": degrees[-1],
    }


def _settled(degrees: list[float | None]) -> bool:
    last = [each for each in degrees[-QUIET_MINUTES - 1 :] if each is not None]
    return len(last) == QUIET_MINUTES + 1 and max(last) - min(last) < WITHIN


def _minute(run: Run, soak: Soak, begun: float) -> list[float]:
    """The milliseconds of each inference of a minute, or of what is left; one at least."""
    start = soak.now()
    times_ms: list[float] = []
    ends = min(start + MINUTE, begun + soak.minutes * MINUTE)
    while not times_ms or soak.now() < ends:
        before = soak.now()
        run(len(times_ms))
        times_ms.append((soak.now() - before) * 1000)
    return times_ms
