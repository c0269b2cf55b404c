"""What a strategy is to the rest: it proposes recipes of a space, and is told what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from compress.search.objectives.judging.objective import Direction
from compress.search.space.space import Choice, Space


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A recipe that is to be tried."""

    choice: Choice
    token: Any = None
    """What the strategy knows it by."""


class Strategy(Protocol):
    """Made of a `Start`; the same answers lead to the same proposals, so that a search goes on where it stopped."""

    def propose(self) -> Proposal | None:
        """The next recipe, which may be one that was proposed before; None where there is no other."""
        ...

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        """What became of it: a number for each objective, in their order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a strategy is made of."""

    space: Space
    directions: Sequence[Direction]
    seed: int


Known = Mapping[str, Sequence[float]]
"""Of each recipe that was tried, by its key: what the strategy was told."""
