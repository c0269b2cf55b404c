"""Gaussian smoothing of probabilities: ragged borders and single pixels go before labels are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import ndimage

from compress.data.dataset.cases import FloatArray
from compress.postprocess.applying.step import Kind, Setting


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Smooth:
    """Each class's probabilities under a Gaussian; beyond the border they are those of the nearest pixel.

    They still sum to 1. The Gaussian is cut off at four standard deviations (scipy.ndimage.gaussian_filter).
    """

    sigma_px: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Its standard deviation, in pixels of the network's answer, alike along every axis."""

    on: ClassVar[Kind] = "probabilities"
    gives: ClassVar[Kind] = "probabilities"

    def __call__(self, probabilities_KHW: FloatArray, image_CHW: FloatArray) -> FloatArray:
        """Smoothed probabilities (KHW, of volumes KDHW)."""
        axes = tuple(range(1, probabilities_KHW.ndim))
        smoothed: FloatArray = ndimage.gaussian_filter(
            probabilities_KHW.astype(np.float32, copy=False), self.sigma_px, axes=axes, mode="nearest"
        )
        return smoothed

    def faults(self, setting: Setting) -> Iterator[str]:
        """It can be applied everywhere."""
        yield from ()
