"""Convolutions in groups, their channels shuffled between (Zhang et al. 2018, ShuffleNet, arXiv 1707.01083)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Grouped:
    """Two k x k convolutions in groups, between which channels change groups."""

    groups: Annotated[int, Field(ge=2, le=16)] = 4
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({"groups": 2}, {})

    def __call__(self, ends: Ends) -> Body | None:
        if max(ends.kernel) == 1 or any(side % self.groups for side in (ends.before, ends.after)):
            return None
        layers = [
            *ends.rise(),
            *ends.normed(ends.before, ends.after, ends.kernel, groups=self.groups, strided=True),
            nn.ChannelShuffle(self.groups),
        ]
        return Body(layers=layers, last=ends.conv(ends.after, ends.after, ends.kernel, groups=self.groups))
