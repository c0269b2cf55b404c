"""Nothing: what goes in comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Identity:
    """No layer at all, where shapes allow it."""

    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    def __call__(self, ends: Ends) -> Body | None:
        return Body(layers=(), last=None) if ends.keeps_shape else None
