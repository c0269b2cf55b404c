"""Holes inside a class: background that the class encloses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from scipy import ndimage

from compress.data.dataset.cases import MaskArray, Spacing
from compress.postprocess.applying.components import boxes_of, indices_of
from compress.postprocess.applying.step import Kind, Setting


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FillHoles:
    """Background from which every way to the image's border, from pixel to pixel over their faces, crosses the class.

    Other classes inside stay what they are, as a vessel in an organ does. Background that several of the classes
    enclose goes to the one that encloses least. A hole of a volume is closed on all sides (scipy.ndimage's
    binary_fill_holes): one that is open through a slice at the border is none.
    """

    classes: tuple[str, ...] | None = None
    """Names of the classes, each by itself; None takes every foreground class."""

    on: ClassVar[Kind] = "labels"
    gives: ClassVar[Kind] = "labels"

    def __call__(self, labels_HW: MaskArray, class_names: Sequence[str], spacing: Spacing | None) -> MaskArray:
        """Labels (HW, of volumes DHW) without holes in these classes."""
        found = []
        # Nothing outside the box around a class is enclosed by it.
        for index, box in boxes_of(labels_HW, indices_of(self.classes, class_names)):
            filled_hw = ndimage.binary_fill_holes(labels_HW[box] == index)
            found.append((int(filled_hw.sum()), index, box, filled_hw & (labels_HW[box] == 0)))
        result_HW = labels_HW.copy()
        for _, index, box, holes_hw in sorted(found, key=lambda each: each[0], reverse=True):
            result_HW[box][holes_hw] = np.uint8(index)
        return result_HW

    def faults(self, setting: Setting) -> Iterator[str]:
        """Names of no class."""
        yield from (f"classes: {fault}" for fault in setting.unknown(self.classes or ()))
