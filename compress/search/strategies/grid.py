"""One recipe after the other, in the order in which they are written down."""

from __future__ import annotations

from collections.abc import Sequence

from compress.search.strategies.sampling.strategy import Proposal, Start


class Grid:
    """The last decision changes fastest."""

    def __init__(self, start: Start) -> None:
        """Begin with the first; of numbers that are not in steps there is none."""
        assert not start.space.endless, "told when the recipe was read"
        self._every = start.space.every()

    def propose(self) -> Proposal | None:
        choice = next(self._every, None)
        return None if choice is None else Proposal(choice=choice)

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        """Nothing."""
