"""nnU-Net's ways to bring a channel's voxels to what its network takes.

Legend: D, H, W the axes of a volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.cases import FloatArray
from compress.errors import DataError

Scheme = Literal[
    "ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"
]
LEAST = 1e-8
"""No deviation is taken for less."""


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """Of the foreground voxels of all training cases together, in the file's unit."""

    mean: float
    std: float
    low: float
    """The 0.5th percentile."""
    high: float
    """The 99.5th."""


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """What is done to one channel, before it is resampled."""

    scheme: Scheme
    masked: bool
    """Whether a z-score is that of the voxels within what is not zero, and others stay as they are."""
    intensities: Intensities | None = None
    """Of CTNormalization."""

    def __str__(self) -> str:
        told = self.intensities
        if self.scheme == "CTNormalization" and told is not None:
            return f"voxels clipped to {told.low:g}..{told.high:g}, less {told.mean:g}, over {told.std:g}"
        words = {
            "ZScoreNormalization": "(voxel - mean of the image) / its standard deviation",
            "RescaleTo01Normalization": "the image's least and largest voxel to 0 and 1",
            "RGBTo01Normalization": "voxel / 255",
        }
        within = ", within what is not zero" if self.masked else ""
        return words.get(self.scheme, "voxels as they are") + (within if self.scheme == "ZScoreNormalization" else "")

    def __call__(self, voxels_DHW: FloatArray, inside_DHW: NDArray[np.bool_], source: str) -> FloatArray:
        """The voxels normalized, float32.

        Args:
            inside_DHW: where any channel is not zero, holes filled.

        Raises:
            DataError: if they cannot be what the scheme is for.
        """
        voxels_DHW = voxels_DHW.astype(np.float32)
        if self.scheme == "ZScoreNormalization":
            taken = inside_DHW if self.masked and inside_DHW.any() else np.ones_like(inside_DHW)
            seen = voxels_DHW[taken]
            voxels_DHW[taken] = (seen - seen.mean()) / max(seen.std(), LEAST)
        elif self.scheme == "CTNormalization":
            told = self.intensities
            if told is None:
                raise DataError(
                    f"{source}: CTNormalization needs the intensities of the foreground, which plans.json lacks"
                )
            voxels_DHW = (np.clip(voxels_DHW, told.low, told.high) - np.float32(told.mean)) / np.float32(
                max(told.std, LEAST)
            )
        elif self.scheme == "RescaleTo01Normalization":
            voxels_DHW -= voxels_DHW.min()
            voxels_DHW /= max(voxels_DHW.max(), LEAST)
        elif self.scheme == "RGBTo01Normalization":
            if voxels_DHW.min() < 0 or voxels_DHW.max() > 255:
                raise DataError(f"{source}: holds voxels outside 0..255, and the plans say that it is an RGB image")
            voxels_DHW /= np.float32(255)
        return voxels_DHW.astype(np.float32)
