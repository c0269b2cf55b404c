"""One recipe after the other, in the order in which they are written down."""

from __future__ import annotations

from collections.abc import Sequence

from compress.errors import SegpressError
from compress.search.strategies.sampling.strategy import Proposal, Start


class Grid:
    """The last decision changes fastest."""

    def __init__(self, start: Start) -> None:
        """Begin with the first.

        Raises:
            SegpressError: if a number is not in steps.
        """
        endless = [each.name for each in start.space.decisions.values() if each.domain.size is None]
        if endless:
            raise SegpressError(f"search.strategy: grid takes numbers in steps: give {endless[0]} a step, or choices")
        self._every = start.space.every()

    def propose(self) -> Proposal | None:
        choice = next(self._every, None)
        return None if choice is None else Proposal(choice=choice)

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        """Nothing."""
