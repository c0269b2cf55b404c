"""Where good trials were dense and bad ones were not (tree-structured Parzen estimators)."""

from __future__ import annotations

from compress.search.strategies.sampling.samplers import Sampled
from compress.search.strategies.sampling.strategy import Start


class Tpe(Sampled):
    """Bergstra et al. 2011 (NeurIPS 24); of several objectives, Ozaki et al. 2022 (JAIR 73)."""

    def __init__(self, start: Start) -> None:
        super().__init__(start, "tpe")
