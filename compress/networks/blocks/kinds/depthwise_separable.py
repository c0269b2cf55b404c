"""Depthwise and 1x1 convolutions, each with norm and activation (Howard et al. 2017, MobileNet, arXiv 1704.04861)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DepthwiseSeparable:
    """A depthwise k x k convolution and a 1x1 one, once or several times."""

    repeat: Annotated[int, Field(ge=1, le=4)] = 1
    """How many times."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"repeat": 2})

    def __call__(self, ends: Ends) -> Body | None:
        if max(ends.kernel) == 1:
            return None
        layers, channels = ends.rise(), ends.before
        for place in range(self.repeat):
            if place:
                layers += ends.normed(channels, ends.after)
                channels = ends.after
            layers += ends.normed(channels, channels, ends.kernel, groups=channels, strided=place == 0)
        return Body(layers=layers, last=ends.conv(channels, ends.after))
