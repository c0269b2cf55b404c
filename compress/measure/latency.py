"""How long inference takes: artifacts measured in turn, warm, in one run.

Two artifacts measured one after the other are compared across whatever the host did meanwhile.
Here they take turns in short blocks, in an order that changes every round, so that a noisy minute
falls on all of them alike. Blocks, rather than single runs, because a runtime's idle threads go on
spinning for a moment and would slow down whoever comes next; each block starts with an untimed run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from scipy.special import bdtr, bdtrc

from export.clock import Clock, Run, Turn, timed

MEDIAN_LEVEL = 0.975
"""Confidence of each of the limits of a median; both hold together with 95 %."""
BLOCK = 10
"""Timed runs in a block."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Timing:
    """How latency is measured: the recipe's `latency`."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of every runtime; None takes every CPU this process may use."""
    samples: Annotated[int, Field(ge=10)] = 459
    """Timed runs of each artifact; 459 bound the 99th percentile, 90 the 95th, 44 the 90th."""
    seconds: Annotated[float, Field(gt=0)] = 60.0
    """Stop earlier when an artifact has had this much time; its row is then labelled screening."""
    warm_up: Annotated[float, Field(ge=0)] = 2.0
    """Seconds of warm-up at most for each artifact; it ends when three windows agree within 2 %, but
    not before a quarter of this time."""


@dataclass(kw_only=True)
class Samples:
    """The timed runs of one artifact, in ms."""

    times_ms: list[float] = field(default_factory=list)
    settled: bool = False
    """Whether warm-up ended by agreement rather than by its limit."""

    def as_dict(self) -> dict[str, Any]:
        times = np.asarray(self.times_ms)
        percentiles = {f"p{p}": round(float(np.percentile(times, p)), 3) for p in (50, 90, 95, 99)}
        return {
            "min": round(float(times.min()), 3),
            **percentiles,
            "max": round(float(times.max()), 3),
            "p50_limits": _median_limits(times),
            "n": len(times),
            "screening": len(times) < samples_for(99),
            "settled": self.settled,
        }


def _median_limits(times: NDArray[np.float64]) -> list[float] | None:
    """Between which two times (ms) the median lies, each with 97.5 % confidence; None for fewer than six.

    Distribution-free, as `limits`, of all samples: a record keeps too few of them to bound the median closely.
    """
    n = len(times)
    ranks = np.arange(1, n + 1)
    below = int((bdtrc(ranks - 1, n, 0.5) >= MEDIAN_LEVEL).sum())
    ordered = np.sort(times)
    return [round(float(ordered[place]), 3) for place in (below - 1, n - below)] if below else None


def samples_for(percentile: float) -> int:
    """How many samples bound a percentile: the fewest of which one lies above it with 99 % probability."""
    return math.ceil(math.log(0.01) / math.log(percentile / 100))


def limits(record: Mapping[str, Any], percentile: float, level: float) -> tuple[float, float]:
    """Between which two times (ms) a percentile lies, each with this confidence; 0 and infinity where n is too small.

    Distribution-free, from order statistics: of n samples, the number below the percentile is binomial, so that the
    k-th smallest lies below it with the probability that at least k are (David & Nagaraja 2003, Order Statistics, 7.1).
    A record keeps some of them only; a quantile between two of its samples is taken for the worse of both.

    Args:
        record: `Samples.as_dict()`.
    """
    n, share = int(record["n"]), percentile / 100
    lower, upper = 0.0, math.inf
    for name, quantile in (("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        if name not in record:
            continue
        place = (n - 1) * quantile
        # It is no larger than the sample of the one rank, and no smaller than that of the other.
        below, above = math.ceil(place) + 1, math.floor(place) + 1
        if bdtrc(below - 1, n, share) >= level:
            lower = max(lower, float(record[name]))
        if bdtr(above - 1, n, share) >= level:
            upper = min(upper, float(record[name]))
    return lower, upper


def interleaved(
    runs: Mapping[str, Run],
    timing: Timing,
    seed: int,
    step: Callable[[], None] = lambda: None,
    blocks: Mapping[str, int] | None = None,
) -> dict[str, Samples]:
    """The same as `in_turns`, of what runs in this process."""
    return in_turns({name: partial(timed, run) for name, run in runs.items()}, timing, seed, step, blocks)


def in_turns(
    clocks: Mapping[str, Clock],
    timing: Timing,
    seed: int,
    step: Callable[[], None] = lambda: None,
    blocks: Mapping[str, int] | None = None,
    warm_with: Mapping[str, str] | None = None,
) -> dict[str, Samples]:
    """Time each in short blocks that take turns, after each has warmed up.

    Every one gets a block in every round, so that all of them, the fast and the slow, are spread
    over the same stretch of time.

    Args:
        clocks: each times inferences where they run.
        step: called after each block, for a progress bar.
        blocks: timed runs in a block, where not the usual ten: one with five gets half the samples.
        warm_with: of clocks that run what another one runs, that one, whose warming up is theirs.
    """
    size = {name: (blocks or {}).get(name, BLOCK) for name in clocks}
    samples = {name: Samples() for name in clocks}
    alike = warm_with or {}
    for name, clock in clocks.items():
        if name not in alike:
            samples[name].settled = _warm_up(clock, timing.warm_up)
            step()
    for name, other in alike.items():
        samples[name].settled = samples[other].settled
    order = np.random.default_rng(seed)
    spent = dict.fromkeys(clocks, 0.0)
    names = list(clocks)
    rounds = math.ceil(timing.samples / BLOCK)
    for number in range(rounds):
        last = timing.samples - number * BLOCK
        for which in order.permutation(len(names)):
            name = names[which]
            if spent[name] < timing.seconds:
                count = math.ceil(size[name] * min(last, BLOCK) / BLOCK)
                spent[name] += _block(clocks[name], samples[name].times_ms, count, timing.seconds - spent[name])
            step()
    return samples


def _block(clock: Clock, times_ms: list[float], count: int, seconds: float) -> float:
    """One untimed inference, then `count` timed ones, fewer where the seconds are up; returns those they took."""
    block = clock(Turn(first=len(times_ms), count=count, untimed=1, seconds=seconds))
    times_ms += block
    return sum(block) / 1000


def _warm_up(clock: Clock, seconds: float, window: int = 5) -> bool:
    """Run until the medians of three consecutive windows agree within 2 %; whether they did.

    At least a quarter of `seconds`: the first windows of a fast network agree before the clock has risen.
    """
    medians: list[float] = []
    begun = time.perf_counter()
    while True:
        medians.append(float(np.median(clock(Turn(first=window * len(medians), count=window)))))
        last, spent = medians[-3:], time.perf_counter() - begun
        if len(last) == 3 and max(last) <= 1.02 * min(last) and spent >= seconds / 4:
            return True
        if spent > seconds:
            return False
