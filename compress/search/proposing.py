"""The next recipe to try: what a strategy proposes, unless that was tried, or else another that was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from compress.search.front import Goals
from compress.search.space.space import Choice, Space
from compress.search.strategies.sampling.strategy import Proposal, Strategy
from compress.search.trial import Trial

PATIENCE = 30
"""Proposals of what was tried until another recipe is drawn."""
LISTED = 5_000
"""Recipes at most among which another one is drawn."""


@dataclass(kw_only=True)
class Proposing:
    """Gives each recipe once, and after the same answers the same ones: so a search goes on where it stopped."""

    strategy: Strategy
    space: Space
    seed: int
    _told: dict[str, Sequence[float]] = field(default_factory=dict)
    _pending: set[str] = field(default_factory=set)
    """What is being tried."""

    def next(self) -> Proposal | None:
        """A recipe that was not tried; None where there is none, or none is found."""
        for _ in range(PATIENCE):
            proposal = self.strategy.propose()
            if proposal is None:
                return None
            key = proposal.choice.key
            if key in self._told:
                self.strategy.learn(proposal, self._told[key])
            elif key not in self._pending:
                return self._begun(proposal)
        other = self._other()
        return None if other is None else self._begun(Proposal(choice=other))

    def _begun(self, proposal: Proposal) -> Proposal:
        self._pending.add(proposal.choice.key)
        return proposal

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        """What became of the recipe, one number for each objective."""
        self._told[proposal.choice.key] = values
        self._pending.discard(proposal.choice.key)
        self.strategy.learn(proposal, values)

    def _other(self) -> Choice | None:
        """One of those not tried, by chance; of an endless space none."""
        if self.space.count(LISTED) is None:
            return None
        known = {*self._told, *self._pending}
        untried = [choice for choice in islice(self.space.every(), LISTED) if choice.key not in known]
        rng = np.random.default_rng((self.seed, len(known)))
        return untried[int(rng.integers(len(untried)))] if untried else None


def told_to(goals: Goals, trial: Trial, reference: Trial) -> list[float]:
    """What a strategy is told of a trial: its values, where all of them are there and within their limits.

    What was stopped, refused, or is beyond a limit is told to be no better than the uncompressed network in what it
    costs, and worth nothing where its score is not known: the strategy looks elsewhere, and from beyond a limit
    towards it.
    """
    values, worst = goals.values(trial), goals.values(reference)
    assert worst is not None, "the uncompressed network was measured"
    scores = iter(trial.torch_scores)
    found = []
    for index, (_, objective) in enumerate(goals.objectives):
        if values is not None and (goals.within(values) or not objective.within(values[index])):
            found.append(values[index])
        elif objective.direction == "maximize":
            found.append(next(scores, 0.0) if values is None else 0.0)
        else:
            found.append(worst[index])
    return found
