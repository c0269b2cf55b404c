"""How much room the artifact takes on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_built
from compress.gates.judging.beforehand import not_built, nowhere
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice
from compress.gates.judging.verdict import Bound, Verdict, at_most
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class SizeMb:
    """Holds where the artifact's files have at most so many megabytes (10^6 bytes)."""

    title: ClassVar[str] = "size_mb"
    reads_scores: ClassVar[bool] = False

    at_most: Limit
    device: OneDevice = None
    backend: OneBackend = None

    never_holds = nowhere
    cannot_hold = not_built

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_built(self, rows, lambda row: [self.bound.outcome(row.size_mb)])
