"""Bottlenecks (He et al. 2016, arXiv 1512.03385)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Bottleneck:
    """1x1 to fewer channels, k x k among them, 1x1 back; around it a shortcut where shapes allow."""

    reduce: Annotated[int, Field(ge=2, le=16)] = 4
    """How many times fewer channels there are between than come out."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({"reduce": 2}, {})

    def __call__(self, ends: Ends) -> Body | None:
        few = ends.after // self.reduce
        if few == 0 or max(ends.kernel) == 1:
            return None
        layers = [
            *ends.normed(ends.before, few),
            *ends.rise(),
            *ends.normed(few, few, ends.kernel, strided=True),
        ]
        return Body(layers=layers, last=ends.conv(few, ends.after), shortcut=ends.keeps_shape)
