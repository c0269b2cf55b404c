"""The stretch's own layers with fewer channels between them (Chee et al. 2022, arXiv 2108.00065)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import OwnLayers, Thinned


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Narrow:
    """The trained layers, as many as there are, with a share of the channels between them."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of the channels that stay, to multiples of 8 where there are more."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({"share": 0.75}, {}, {"share": 0.35}, {"share": 0.25})

    def thinned(self, own: OwnLayers) -> Thinned | None:
        return own.narrowed(self.share)
