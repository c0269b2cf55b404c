"""Of several classes taken together only the largest connected component: for an organ and what lies in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from scipy import ndimage

from compress.data.dataset.cases import MaskArray, Spacing
from compress.postprocess.applying.components import indices_of
from compress.postprocess.applying.step import Kind, Setting


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LargestForeground:
    """Whatever of these classes is no part of their largest component becomes background.

    nnU-Net's first rule, `remove_all_but_largest_component_from_segmentation` with a list of labels. Components are
    joined at faces, edges and corners, whatever their classes; of equally large ones the first in the image's order
    stays, where nnU-Net keeps them all.
    """

    classes: tuple[str, ...] | None = None
    """Names of the classes that are taken as one; None takes every foreground class."""

    on: ClassVar[Kind] = "labels"
    gives: ClassVar[Kind] = "labels"

    def __call__(self, labels_HW: MaskArray, class_names: Sequence[str], spacing: Spacing | None) -> MaskArray:
        """Labels (HW, of volumes DHW) with one component of the classes together at most."""
        among_HW = np.isin(labels_HW, indices_of(self.classes, class_names))
        numbers_HW, count = ndimage.label(among_HW, np.ones((3,) * labels_HW.ndim, bool))
        if count < 2:
            return labels_HW
        largest = 1 + int(np.bincount(numbers_HW.ravel())[1:].argmax())
        return np.where(among_HW & (numbers_HW != largest), 0, labels_HW).astype(labels_HW.dtype)

    def faults(self, setting: Setting) -> Iterator[str]:
        """Names of no class."""
        yield from (f"classes: {fault}" for fault in setting.unknown(self.classes or ()))
