"""From a volume's channels to what nnU-Net's network sees, and where that lies in the volume.

Legend: C channels, K classes, D, H, W the axes of the volume in the plan's order, d, h, w those of what the network
sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from compress.data.dataset.cases import FloatArray, MaskArray, Spacing
from compress.data.dataset.tiles import Size
from compress.data.planned.plan import Plan
from compress.data.planned.resampling import Resampling, size_at

LOOKED_AT = (0.5, 99.5)
"""The percentiles that are black and white where a person looks at it."""


@dataclass(frozen=True, kw_only=True)
class Framed:
    """Where a cropped and resampled volume lies in the original."""

    original: Size
    box: tuple[slice, ...]
    """What is not zero, within the original."""
    size: Size
    """Of what the network sees."""
    before: Spacing
    """Sides of the original's voxels in mm."""
    after: Spacing
    """Of what the network sees."""
    answers: Resampling

    @property
    def cropped(self) -> Size:
        """The size of the box."""
        return tuple(side.stop - side.start for side in self.box)

    def mask(self, mask_DHW: MaskArray) -> MaskArray:
        """Class indices (DHW) as the network sees them (dhw), each voxel that of the nearest."""
        inside = mask_DHW[self.box]
        places = (
            np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(int), old - 1)
            for old, new in zip(inside.shape, self.size, strict=True)
        )
        return inside[np.ix_(*places)]

    def logits(self, logits_Kdhw: FloatArray) -> FloatArray:
        """Logits at the resolution of the original, of the box alone."""
        return self.answers(logits_Kdhw, self.cropped, self.after, self.before)

    def placed(self, labels: MaskArray) -> MaskArray:
        """Labels of the box, with background around it (DHW)."""
        whole_DHW = np.zeros(self.original, np.uint8)
        whole_DHW[self.box] = labels
        return whole_DHW

    def seen(self, pixels_Cdhw: FloatArray) -> FloatArray:
        """What the network sees between black (0) and white (1)."""
        low, high = np.percentile(pixels_Cdhw, LOOKED_AT)
        return np.clip((pixels_Cdhw - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def prepared(plan: Plan, voxels_CDHW: FloatArray, spacing: Spacing, source: str) -> tuple[FloatArray, Framed]:
    """What the network sees of a volume (Cdhw): cropped, normalized, resampled.

    Args:
        voxels_CDHW: as the file has them, its axes in the plan's order.
        spacing: sides of a voxel in mm, in that order.

    Raises:
        DataError: if the voxels cannot be what the plan says that they are.
    """
    inside_DHW = _not_zero(voxels_CDHW)
    box = ndimage.find_objects(inside_DHW.astype(np.uint8))
    place = box[0] if box else tuple(slice(0, side) for side in inside_DHW.shape)
    cropped_CDHW, inside_DHW = voxels_CDHW[:, *place], inside_DHW[place]
    normal_CDHW = np.stack(
        [
            normalize(voxels, inside_DHW, source)
            for normalize, voxels in zip(plan.normalizers, cropped_CDHW, strict=True)
        ]
    )
    # Slices keep their distance where the network takes slices.
    after = (*spacing[: len(spacing) - plan.dims], *plan.spacing)
    frame = Framed(
        original=voxels_CDHW.shape[1:],
        box=place,
        size=size_at(normal_CDHW.shape[1:], spacing, after),
        before=spacing,
        after=after,
        answers=plan.answers,
    )
    return plan.data(normal_CDHW, frame.size, spacing, after), frame


def _not_zero(voxels_CDHW: FloatArray) -> NDArray[np.bool_]:
    """Where any channel is not zero, holes filled."""
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes((voxels_CDHW != 0).any(axis=0))
    return filled
