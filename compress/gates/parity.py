"""The share of pixels whose class is another in the built artifact than in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_measured, where_shown
from compress.gates.judging.beforehand import not_measured, nowhere
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_most
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Parity:
    """Holds where at most this share of the pixels flips."""

    title: ClassVar[str] = "parity"
    reads_scores: ClassVar[bool] = False

    at_most: Limit
    device: OneDevice = None
    backend: OneBackend = None

    never_holds = nowhere
    cannot_hold = not_measured

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_measured(self, rows, lambda row: where_shown(row, [self._outcome(row)]))

    def _outcome(self, row: Row) -> Outcome:
        return self.bound.outcome(None if row.parity is None else row.parity["flipped"])
