"""The double convolution with fewer channels between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Narrow:
    """Two k x k convolutions with a share of the stretch's inner channels between them."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of the inner channels that stay, rounded up to a multiple of 8 where there are more."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"share": 0.25})

    def __call__(self, ends: Ends) -> Body | None:
        few = max(1, round(self.share * ends.inner))
        few = -(-few // 8) * 8 if few > 8 else few
        if few >= ends.inner:
            return None
        layers = [*ends.rise(), *ends.normed(ends.before, few, ends.kernel, strided=True)]
        return Body(layers=layers, last=ends.conv(few, ends.after, ends.kernel))
