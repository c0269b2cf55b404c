"""Every decision by chance, each value as likely as the next."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compress.search.space.domain import Between
from compress.search.space.space import Decision
from compress.search.strategies.sampling.strategy import Proposal, Start


class Random:
    """Learns nothing: what the others are measured against (Bergstra & Bengio 2012, JMLR 13)."""

    def __init__(self, start: Start) -> None:
        self.space, self._rng = start.space, np.random.default_rng(start.seed)

    def propose(self) -> Proposal:
        return Proposal(choice=self.space.choice(lambda decision: drawn(decision, self._rng)))

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        """Nothing."""


def drawn(decision: Decision, rng: np.random.Generator) -> int | float:
    """One of a decision's values, or a number."""
    domain = decision.domain
    if isinstance(domain, Between) and domain.log:
        value = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
        return round(value) if domain.whole else value
    if domain.size is None:
        assert isinstance(domain, Between)
        return float(rng.uniform(domain.low, domain.high))
    return domain.listed()[int(rng.integers(domain.size))]
