"""How much energy one inference takes, of the whole that the device measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_measured
from compress.gates.judging.beforehand import not_measured, nowhere
from compress.gates.judging.options import OPTIONS, OneBackend, OneDevice
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_most, inconclusive
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class EnergyMj:
    """Holds where an inference takes at most so many millijoules, idle power included."""

    title: ClassVar[str] = "energy_mj"
    reads_scores: ClassVar[bool] = False

    at_most: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    device: OneDevice = None
    backend: OneBackend = None

    never_holds = nowhere
    cannot_hold = not_measured

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_measured(self, rows, lambda row: [self._outcome(row)])

    def _outcome(self, row: Row) -> Outcome:
        watch = row.watch or {"why": "it was not watched"}
        if watch.get("energy_mj") is None:
            why = watch.get("why") or watch["unknown"].get("power", "nothing was read")
            return inconclusive(f"not measured: its energy: {why}")
        return self.bound.outcome(watch["energy_mj"])
