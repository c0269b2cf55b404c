"""Kernels along one axis after another (Qiu et al. 2017, P3D, arXiv 1711.10248; in images, k x 1 and 1 x k)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from compress.networks.blocks.ends import Body, Ends


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Factorized:
    """A convolution along all axes but the first, then one along the first."""

    usual: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    def __call__(self, ends: Ends) -> Body | None:
        along, across = (ends.kernel[0], *[1] * (ends.dims - 1)), (1, *ends.kernel[1:])
        if ends.kernel[0] == 1 or max(across) == 1:
            return None
        layers = [*ends.rise(), *ends.normed(ends.before, ends.after, across, strided=True)]
        return Body(layers=layers, last=ends.conv(ends.after, ends.after, along))
