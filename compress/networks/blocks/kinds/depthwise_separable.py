"""Depthwise and 1x1 convolutions in the place of each of the stretch's own (MobileNet, arXiv 1704.04861).

Begun from the trained kernels: Guo et al. 2018, "Network Decoupling" (arXiv 1808.05517).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import OwnLayers, Thinned


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DepthwiseSeparable:
    """The trained layers, each k x k convolution as a depthwise one and a 1x1 one."""

    rank: Annotated[int, Field(ge=1, le=4)] = 1
    """Depthwise filters for each channel."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"rank": 2})

    def thinned(self, own: OwnLayers) -> Thinned | None:
        return own.separated(self.rank)
