"""Depthwise convolutions with large kernels (Liu et al. 2022, ConvNeXt, arXiv 2201.03545)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LargeKernel:
    """A large depthwise convolution with a norm, 1x1 to more channels, 1x1 back; a shortcut where shapes allow."""

    kernel: Literal[5, 7, 9, 11] = 7
    """Along each axis over which the stretch looks."""
    expand: Annotated[int, Field(ge=1, le=4)] = 2
    """How many times more channels there are between the two 1x1 convolutions than come out."""
    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"kernel": 5, "expand": 1})

    def __call__(self, ends: Ends) -> Body | None:
        if max(ends.kernel) == 1:
            return None
        sides, wide = tuple(self.kernel if side > 1 else 1 for side in ends.kernel), self.expand * ends.after
        norms = ends.norms(ends.before)
        deep = ends.conv(ends.before, ends.before, sides, groups=ends.before, strided=True, bias=not norms)
        layers = [*ends.rise(), deep, *norms, *ends.normed(ends.before, wide)]
        return Body(layers=layers, last=ends.conv(wide, ends.after), shortcut=ends.keeps_shape)
