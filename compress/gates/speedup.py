"""How many times faster the built artifact is than the baseline or another step, timed in the same run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_measured
from compress.gates.judging.beforehand import few_samples, not_measured, nowhere, over_nothing
from compress.gates.judging.comparison import compared
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice, Over, Percentile
from compress.gates.judging.scene import Scene
from compress.gates.judging.timing import ratio_outcome
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_least, inconclusive
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Speedup:
    """Holds where the ratio of a percentile of both latencies is at least the bound."""

    title: ClassVar[str] = "speedup"
    reads_scores: ClassVar[bool] = False

    at_least: Limit
    device: OneDevice = None
    backend: OneBackend = None
    percentile: Percentile = 50
    over: Over = None

    cannot_hold = not_measured

    @property
    def bound(self) -> Bound:
        return at_least(self.at_least)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_measured(self, rows, lambda row: [self._outcome(rows, row)])

    def never_holds(self, scene: Scene) -> Iterator[str]:
        yield from nowhere(self, scene)
        yield from few_samples(self.percentile, scene)
        yield from over_nothing(self, scene)

    def _outcome(self, rows: Sequence[Row], row: Row) -> Outcome:
        before, name = compared(rows, self.over, row)
        if row.latency_ms is None:
            return inconclusive("not measured: its latency")
        if before is None or before.status != "measured" or before.latency_ms is None:
            return inconclusive(f"not measured: {name}")
        return ratio_outcome(self.bound, self.percentile, before.latency_ms, row.latency_ms)
