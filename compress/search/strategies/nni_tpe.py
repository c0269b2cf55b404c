"""NNI's tree-structured Parzen estimators, of each decision by itself."""

from __future__ import annotations

from compress.search.strategies.sampling.nni_strategies import Tuned


class NniTpe(Tuned):
    """Bergstra et al. 2011 (NeurIPS 24)."""
