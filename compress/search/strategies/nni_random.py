"""NNI's random search: every decision by chance."""

from __future__ import annotations

from compress.search.strategies.sampling.nni_strategies import Driven
from compress.search.strategies.sampling.strategy import Start


class NniRandom(Driven):
    """Learns nothing, as `random`, from other random numbers."""

    def __init__(self, start: Start) -> None:
        super().__init__(start, "random")
