"""A 1x1 convolution: channels are mixed, and no pixel sees another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Pointwise:
    """One 1x1 convolution."""

    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    def __call__(self, ends: Ends) -> Body | None:
        return Body(layers=ends.rise(), last=ends.conv(ends.before, ends.after, strided=True))
