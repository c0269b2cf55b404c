"""One convolution that looks as far as two do (Yu and Koltun 2016, arXiv 1511.07122)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Dilated:
    """One k x k convolution with holes."""

    dilation: Annotated[int, Field(ge=2, le=8)] = 2
    """How many pixels lie between two that its kernel reads, and one more."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    def __call__(self, ends: Ends) -> Body | None:
        if max(ends.kernel) == 1:
            return None
        last = ends.conv(ends.before, ends.after, ends.kernel, dilation=self.dilation, strided=True)
        return Body(layers=ends.rise(), last=last)
