"""One convolution where there were several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Single:
    """One k x k convolution."""

    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    def __call__(self, ends: Ends) -> Body | None:
        return Body(layers=ends.rise(), last=ends.conv(ends.before, ends.after, ends.kernel, strided=True))
