"""What a gate is to the rest: a dataclass, called with what was measured, whose fields are the recipe's options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from compress.gates.judging.scene import Scene
from compress.gates.judging.verdict import Bound, Verdict
from compress.measure.row import Row


class Gate(Protocol):
    """One bound on one measured number."""

    @property
    def title(self) -> str:
        """What its verdicts are called."""
        ...

    @property
    def reads_scores(self) -> bool:
        """Whether it reads how well the baseline does: one that finds nothing is then refused before any pass."""
        ...

    @property
    def bound(self) -> Bound: ...

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        """One verdict for each artifact of the last step that it applies to (and each class, for a score).

        There is one at least: a gate on something that was not measured is inconclusive, never left out.
        """
        ...

    def never_holds(self, scene: Scene) -> Iterator[str]:
        """Why the recipe itself keeps it from ever holding, and what would be right; before anything is built."""
        ...

    def cannot_hold(self, scene: Scene) -> Iterator[str]:
        """Why it cannot hold with this data or on this host; before anything is built."""
        ...
