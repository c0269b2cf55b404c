"""What gates on how many times less an artifact has of something have in common: a file names what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_built
from compress.gates.judging.beforehand import no_ratio_to_judge, not_built
from compress.gates.judging.comparison import times_less
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice, Over
from compress.gates.judging.verdict import Bound, Verdict, at_least
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class TimesLessGate:
    """Holds where the ratio of both numbers is at least the bound: what it is over, and the artifact."""

    title: ClassVar[str]
    number: ClassVar[str]
    """The field of `Row` that has it."""
    reads_scores: ClassVar[bool] = False

    at_least: Limit
    device: OneDevice = None
    backend: OneBackend = None
    over: Over = None

    never_holds = no_ratio_to_judge
    cannot_hold = not_built

    @property
    def bound(self) -> Bound:
        return at_least(self.at_least)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        def number(row: Row) -> float | None:
            told: float | None = getattr(row, self.number)
            return told

        return each_built(self, rows, lambda row: [times_less(self.bound, number, rows, self.over, row)])
