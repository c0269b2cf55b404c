"""nnU-Net's resampling: splines within slices, and across them apart where voxels are much longer that way.

Computes what skimage.transform.resize does without antialiasing (`mode="edge"`, `clip=True`), by the function of scipy
that it calls; nnU-Net's `resample_data_or_seg`.

Legend: C channels (or classes), D, H, W the axes of a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from compress.data.dataset.cases import FloatArray, Spacing
from compress.data.dataset.tiles import Size

ANISOTROPIC = 3.0
"""The longest side of a voxel over its shortest, above which slices are resampled each for itself."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """The orders of the splines."""

    order: int
    across: int = 0
    """Along the axis of the longest side, where it is resampled apart: 0 is the nearest slice."""
    separate: bool | None = None
    """Whether it is; None where voxels are long that way."""

    def __call__(self, values_CDHW: NDArray[Any], size: Size, before: Spacing, after: Spacing) -> FloatArray:
        """Values of another size.

        Args:
            before, after: sides of a voxel, which decide whether slices are resampled apart.
        """
        if values_CDHW.shape[1:] == tuple(size):
            return values_CDHW.astype(np.float32, copy=False)
        axis = self._apart(before, after)
        made = np.empty((len(values_CDHW), *size), np.float32)
        for index, values_DHW in enumerate(values_CDHW):
            whole = values_DHW.astype(np.float64)
            made[index] = _resized(whole, size, self.order) if axis is None else self._slices(whole, size, axis)
        return made

    def _apart(self, before: Spacing, after: Spacing) -> int | None:
        """The axis across which slices lie that are resampled each for itself."""
        if self.separate is False:
            return None
        long = [spacing for spacing in (before, after) if max(spacing) / min(spacing) > ANISOTROPIC]
        if self.separate:
            long = [before]
        axes = _longest(long[0]) if long else ()
        # Where two sides are as long there are no slices.
        return axes[0] if len(axes) == 1 else None

    def _slices(self, values_DHW: NDArray[np.float64], size: Size, axis: int) -> NDArray[np.float64]:
        plane = tuple(side for index, side in enumerate(size) if index != axis)
        slices = np.moveaxis(values_DHW, axis, 0)
        sized = np.moveaxis(np.stack([_resized(each, plane, self.order) for each in slices]), 0, axis)
        if sized.shape == tuple(size):
            return sized
        places = np.meshgrid(
            *((np.arange(new) + 0.5) * (old / new) - 0.5 for old, new in zip(sized.shape, size, strict=True)),
            indexing="ij",
        )
        made: NDArray[np.float64] = ndimage.map_coordinates(sized, places, order=self.across, mode="nearest")
        return made


def size_at(size: Size, before: Spacing, after: Spacing) -> Size:
    """The size of a volume whose voxels become `after` mm long."""
    return tuple(round(old / new * side) for old, new, side in zip(before, after, size, strict=True))


def _longest(spacing: Sequence[float]) -> tuple[int, ...]:
    return tuple(index for index, side in enumerate(spacing) if side == max(spacing))


def _resized(values: NDArray[np.float64], size: Size, order: int) -> NDArray[np.float64]:
    zoom = [new / old for old, new in zip(values.shape, size, strict=True)]
    made = ndimage.zoom(values, zoom, order=order, mode="nearest", grid_mode=True)
    # A spline overshoots.
    clipped: NDArray[np.float64] = np.clip(made, values.min(), values.max())
    return clipped
