"""Connected components of each class: what the steps on labels are made of.

Legend: H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from compress.data.dataset.cases import MaskArray

Sizes = NDArray[np.intp]
Kept = NDArray[np.bool_]


def indices_of(names: Sequence[str] | None, class_names: Sequence[str]) -> list[int]:
    """The class indices of these names; None means every foreground class."""
    return [class_names.index(name) for name in (class_names[1:] if names is None else names)]


def of_components(labels_HW: MaskArray, classes: Sequence[int], kept: Callable[[Sizes], Kept]) -> MaskArray:
    """The labels, with background in place of the components of these classes that are not kept.

    Pixels that touch at a face, an edge or a corner belong together: 8 neighbours in images, 26 in volumes.

    Args:
        kept: which components of a class stay, by their numbers of pixels, in the order of their first pixels.
    """
    result_HW = labels_HW.copy()
    everything = np.ones((3,) * labels_HW.ndim, bool)
    for index, box in boxes_of(labels_HW, classes):
        # Numbered in int32, whatever the size.
        numbers_hw, count = ndimage.label(labels_HW[box] == index, everything)
        sizes = np.bincount(numbers_hw.ravel(), minlength=count + 1)[1:]
        stays = np.concatenate([[True], kept(sizes)])
        if not stays.all():
            result_HW[box][~stays[numbers_hw]] = 0
    return result_HW


def boxes_of(labels_HW: MaskArray, classes: Sequence[int]) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Each of the classes that is there, with the box around it: most of an image is background."""
    boxes = ndimage.find_objects(labels_HW)
    for index in classes:
        box = boxes[index - 1] if index <= len(boxes) else None
        if box is not None:
            yield index, box
