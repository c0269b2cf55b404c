"""Convolutions at half the size (Chen et al. 2020, FasterSeg, arXiv 1912.10917)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Zoomed:
    """A k x k convolution to half the size, and a transposed one back."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the stretch's inner channels that are at half the size."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"share": 0.5})

    def __call__(self, ends: Ends) -> Body | None:
        if not ends.keeps_size or min(ends.kernel) == 1:
            return None
        inner = max(1, round(self.share * ends.inner))
        norms = ends.norms(inner)
        small = ends.halving(ends.before, inner, bias=not norms)
        return Body(layers=[small, *norms, ends.active()], last=ends.tiling(inner, ends.after))
