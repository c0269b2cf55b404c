"""Thin convolutions in a row in the place of each of the stretch's own (Kim et al. 2016, arXiv 1511.06530)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Decomposed, OwnLayers, Thinned


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Lowrank:
    """The trained layers, each convolution as a product of thinner ones."""

    how: Decomposed = "tucker"
    """tucker: 1x1, k x k, 1x1. svd: k x k, 1x1. spatial: k x 1, 1 x k."""
    rank: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the full ranks that stays."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"rank": 0.3}, {"rank": 0.15})

    def thinned(self, own: OwnLayers) -> Thinned | None:
        return own.decomposed(self.how, self.rank)
