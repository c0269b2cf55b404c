"""Power, heat and clocks, read several times a second by a thread beside what is measured."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from export.remote.runner import clocks, heat, throttling
from export.remote.runner.power import Rails, Sample

PERIOD = 0.2
"""Seconds between two samples."""


class Samples:
    """What was read so far; of each list, in the order it was read."""

    def __init__(self, rails: Rails, root: Path, kind: str) -> None:
        self._rails, self._root, self._kind = rails, root, kind
        self.power: dict[str, list[Sample]] = {name: [] for name in rails.rails}
        self.degrees: dict[str, list[float]] = {}
        self.megahertz: dict[str, list[float]] = {}
        self.flags: dict[str, int] = {}
        """The most that each was."""

    def take(self) -> None:
        """Read everything once."""
        for name, rail in self._rails.rails.items():
            value = rail.read()
            if value is not None and rail.is_plausible(value):
                self.power[name].append((time.perf_counter(), value))
        for name, degrees in heat.temperatures(self._root, self._kind).items():
            self.degrees.setdefault(name, []).append(degrees)
        for name, clock in clocks.now(self._root, self._kind).items():
            self.megahertz.setdefault(name, []).append(clock)
        for name, state in throttling.flags(self._root, self._kind).items():
            self.flags[name] = max(state, self.flags.get(name, 0))

    def mean_w(self, name: str) -> float | None:
        """The mean power of a rail; None where it was read less than twice."""
        power = self.power[name]
        return self._rails.rails[name].mean(power) if self.is_known(name) else None

    def max_w(self, names: list[str]) -> float | None:
        """The largest power of these rails together; None where they were not read together."""
        if not names or not all(map(self.is_known, names)):
            return None
        each = [self._rails.rails[name].watts(self.power[name]) for name in names]
        return max(map(sum, zip(*each))) if len({len(watts) for watts in each}) == 1 else None

    def is_known(self, name: str) -> bool:
        """Whether there are samples enough for a mean."""
        power = self.power[name]
        return len(power) > 1 and power[-1][0] > power[0][0]


@contextmanager
def sampled(rails: Rails, root: Path, kind: str = "cpu") -> Iterator[Samples]:
    """Samples from the beginning of what is done inside to its end.

    Args:
        kind: of what computes.
    """
    samples, done, taking = Samples(rails, root, kind), threading.Event(), threading.Lock()

    def work() -> None:
        while not done.wait(PERIOD):
            with taking:
                if not done.is_set():
                    samples.take()

    thread = threading.Thread(target=work, daemon=True)
    # Neither that it starts nor that it ends lies between the first sample and the last: on a busy host it takes longer
    # than what is measured, and would be called rest.
    with taking:
        thread.start()
        samples.take()
    try:
        yield samples
    finally:
        done.set()
        with taking:
            samples.take()
        thread.join()
