"""How many times less room the artifact takes than the baseline's or another step's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_built
from compress.gates.judging.beforehand import not_built, nowhere, over_nothing
from compress.gates.judging.comparison import times_less
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice, Over
from compress.gates.judging.scene import Scene
from compress.gates.judging.verdict import Bound, Verdict, at_least
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Smaller:
    """Holds where the ratio of both sizes on disk is at least the bound."""

    title: ClassVar[str] = "smaller"
    reads_scores: ClassVar[bool] = False

    at_least: Limit
    device: OneDevice = None
    backend: OneBackend = None
    over: Over = None

    @property
    def bound(self) -> Bound:
        return at_least(self.at_least)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_built(
            self, rows, lambda row: [times_less(self.bound, lambda each: each.size_mb, rows, self.over, row)]
        )

    def never_holds(self, scene: Scene) -> Iterator[str]:
        yield from nowhere(self, scene)
        yield from over_nothing(self, scene)

    def cannot_hold(self, scene: Scene) -> Iterator[str]:
        return not_built(self, scene)
