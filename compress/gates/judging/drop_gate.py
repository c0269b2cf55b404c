"""What gates on a paired drop have in common: a file of compress/gates/ names the metric, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_measured
from compress.gates.judging.beforehand import no_drop_here, no_drop_to_judge
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneClass, OneDevice
from compress.gates.judging.score_drop import drop_outcomes
from compress.gates.judging.verdict import Bound, Verdict, at_most
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DropGate:
    """Holds where the upper limit of the mean paired drop in `metric` is under the bound, for every class."""

    title: ClassVar[str]
    metric: ClassVar[str]
    """One of `METRICS`; of a distance it is the rise that is judged, in the data's unit (mm, or pixels)."""
    reads_scores: ClassVar[bool] = True

    at_most: Limit
    device: OneDevice = None
    backend: OneBackend = None
    class_name: OneClass = None

    never_holds = no_drop_to_judge
    cannot_hold = no_drop_here

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_measured(
            self, rows, lambda row: drop_outcomes(self.metric, self.at_most, rows, row, self.class_name)
        )
