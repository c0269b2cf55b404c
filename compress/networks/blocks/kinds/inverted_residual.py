"""Inverted residuals (MobileNetV2, Sandler et al. 2018, arXiv 1801.04381; with squeeze, V3, arXiv 1905.02244)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends
from compress.networks.blocks.gated import Gated


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class InvertedResidual:
    """1x1 to more channels, depthwise k x k, 1x1 back; around it a shortcut where shapes allow."""

    expand: Annotated[int, Field(ge=1, le=8)] = 2
    """How many times more channels there are between."""
    squeeze: bool = False
    """Whether channels are weighed by their means (squeeze-and-excitation)."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"expand": 4}, {"expand": 2, "squeeze": True})

    def __call__(self, ends: Ends) -> Body | None:
        if max(ends.kernel) == 1:
            return None
        wide = self.expand * ends.before
        layers = [
            *ends.normed(ends.before, wide),
            *ends.rise(),
            *ends.normed(wide, wide, ends.kernel, groups=wide, strided=True),
        ]
        if self.squeeze:
            layers.append(Gated(*ends.squeezed(wide, 4 * self.expand)))
        return Body(layers=layers, last=ends.conv(wide, ends.after), shortcut=ends.keeps_shape)
