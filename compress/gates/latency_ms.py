"""How long the network alone takes, at a percentile of its timed runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_measured
from compress.gates.judging.beforehand import far_to_floor, few_samples, not_measured, nowhere, under_floor
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice, Percentile
from compress.gates.judging.scene import Scene
from compress.gates.judging.timing import time_outcome
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_most, inconclusive
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class LatencyMs:
    """Holds where the percentile of the latency is within the bound; too few samples can exclude it, not hold it."""

    title: ClassVar[str] = "latency_ms"
    reads_scores: ClassVar[bool] = False

    at_most: Limit
    device: OneDevice = None
    backend: OneBackend = None
    percentile: Percentile = 50

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_measured(self, rows, lambda row: [self._outcome(row)])

    def never_holds(self, scene: Scene) -> Iterator[str]:
        yield from nowhere(self, scene)
        yield from few_samples(self.percentile, scene)
        yield from under_floor(self, scene)

    def cannot_hold(self, scene: Scene) -> Iterator[str]:
        yield from not_measured(self, scene)
        yield from far_to_floor(self, scene)

    def _outcome(self, row: Row) -> Outcome:
        if row.latency_ms is None:
            return inconclusive("not measured: its latency")
        outcome = time_outcome(self.bound, self.percentile, row.latency_ms)
        if not row.latency_ms.get("throttled"):
            return outcome
        by = f"throttled while it was timed ({', '.join(row.latency_ms['throttled'])})"
        return replace(outcome, reason=f"{outcome.reason}; {by}" if outcome.reason else by)
