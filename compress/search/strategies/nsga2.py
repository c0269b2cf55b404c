"""Generations of trials, of which the front's and those in its gaps have children (Deb et al. 2002)."""

from __future__ import annotations

from compress.search.strategies.sampling.samplers import Sampled
from compress.search.strategies.sampling.strategy import Start


class Nsga2(Sampled):
    """NSGA-II (IEEE Transactions on Evolutionary Computation 6); worth it from some hundred trials on."""

    def __init__(self, start: Start) -> None:
        super().__init__(start, "nsga2")
