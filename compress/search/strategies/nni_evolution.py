"""NNI's regularized evolution: the best of a few recent recipes is changed a little, and the oldest dies."""

from __future__ import annotations

from compress.search.strategies.sampling.nni_strategies import Driven
from compress.search.strategies.sampling.strategy import Start


class NniEvolution(Driven):
    """Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search" (AAAI 33)."""

    def __init__(self, start: Start) -> None:
        super().__init__(start, "evolution")
