"""What is done to the pixels of an image and to those of an answer, with NumPy: a part of packs.

This file is copied into packs beside segpress_run.py and imports nothing of segpress.

Legend: H and W height and width of the image, h and w the network's, K classes.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def resized(pixels: Array, height: int, width: int) -> Array:
    """An image of another size as Pillow's BILINEAR makes it: of 8 bits in 22 bits of fixed point, width first."""
    exact = pixels.dtype != np.uint8
    for axis, new in ((1, width), (0, height)):
        old = pixels.shape[axis]
        if old == new:
            continue
        scale = max(old / new, 1.0)
        middles = (np.arange(new) + 0.5) * (old / new)
        first = np.maximum((middles - scale + 0.5).astype(int), 0)
        last = np.minimum((middles + scale + 0.5).astype(int), old)
        weights = np.zeros((new, old))
        for row, (middle, low, high) in enumerate(zip(middles, first, last)):
            part = np.maximum(1 - np.abs(np.arange(low, high) - middle + 0.5) / scale, 0)
            weights[row, low:high] = part / part.sum()
        along = np.moveaxis(pixels, axis, 0)
        if exact:
            moved = np.tensordot(weights, along.astype(np.float64), 1).astype(np.float32)
        else:
            whole = np.floor(weights * (1 << 22) + 0.5)
            moved = np.tensordot(whole, along.astype(np.float64), 1) + (1 << 21)
            moved = np.clip(np.floor(moved / (1 << 22)), 0, 255).astype(np.uint8)
        pixels = np.moveaxis(moved, 0, axis)
    return pixels


def normalized(pixels_Chw: Array, before: dict[str, Any]) -> Array:
    """(pixel - mean) / std (float32), by the numbers given, or by those of the image or of each of its channels."""
    pixels_Chw = pixels_Chw[::-1] if before["order"] == "BGR" else pixels_Chw
    mean, std = (np.array(before[each]) for each in ("mean", "std"))
    if before["z_score"] is not None:
        axes = (1, 2) if before["z_score"] == "channel" else (0, 1, 2)
        mean, std = pixels_Chw.mean(axes, np.float64), np.maximum(pixels_Chw.std(axes, np.float64), 1e-6)
    mean, std = (each.astype(np.float32).reshape(-1, 1, 1) for each in (mean, std))
    return (pixels_Chw - mean) / std


def shares_of(logits_Khw: Array) -> Array:
    """Probabilities (Khw float32): a softmax over the classes, of a single logit its sigmoid."""
    logits = logits_Khw.astype(np.float64)
    if len(logits) == 1:
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    powers = np.exp(logits - logits.max(0))
    return (powers / powers.sum(0)).astype(np.float32)


def enlarged(values_hw: Array, height: int, width: int) -> Array:
    """Values at another size, interpolated linearly between the middles of pixels, without antialiasing."""
    for axis, new in ((0, height), (1, width)):
        old = values_hw.shape[axis]
        if old == new:
            continue
        half = np.float32(0.5)
        place = np.maximum((np.arange(new, dtype=np.float32) + half) * np.float32(old / new) - half, 0)
        low = np.minimum(place.astype(int), old - 1)
        share = (place - low.astype(np.float32)).reshape((-1, 1) if axis == 0 else (1, -1))
        below, above = (np.take(values_hw, each, axis) for each in (low, np.minimum(low + 1, old - 1)))
        values_hw = below * (1 - share) + above * share
    return values_hw


def nearest(labels: Array, height: int, width: int) -> Array:
    """Labels at another size, each pixel that of the place its middle falls on."""
    steps = (np.r_[old / new / 2, np.full(new - 1, old / new)] for old, new in zip(labels.shape, (height, width)))
    return labels[np.ix_(*(np.add.accumulate(each).astype(int) for each in steps))]


def of_components(labels: Array, classes: list[int], stays: Callable[[Array], Array]) -> Array:
    """The labels with background for the components of these classes that do not stay, by their numbers of pixels."""
    from scipy import ndimage

    result = labels.copy()
    for index in classes:
        numbers, count = ndimage.label(labels == index, np.ones((3, 3), bool))
        if count:
            sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
            result[~np.concatenate([[True], stays(sizes)])[numbers]] = 0
    return result


def largest_component(labels: Array, classes: list[int], options: dict[str, Any]) -> Array:
    """The labels with one component of each of the classes at most: of equally large ones the first."""
    return of_components(labels, classes, lambda sizes: np.arange(len(sizes)) == sizes.argmax())


def remove_small(labels: Array, classes: list[int], options: dict[str, Any]) -> Array:
    """The labels without components of fewer pixels than `under_px`."""
    return of_components(labels, classes, lambda sizes: sizes >= options["under_px"])


def fill_holes(labels: Array, classes: list[int], options: dict[str, Any]) -> Array:
    """The labels with each class in the background that it encloses; what encloses least comes last and stays."""
    from scipy import ndimage

    filled = [(index, ndimage.binary_fill_holes(labels == index) & (labels == 0)) for index in classes]
    result = labels.copy()
    enclosed = {index: int(ndimage.binary_fill_holes(labels == index).sum()) for index in classes}
    for index, holes in sorted(filled, key=lambda each: enclosed[each[0]], reverse=True):
        result[holes] = np.uint8(index)
    return result


STEPS = {"largest_component": largest_component, "remove_small": remove_small, "fill_holes": fill_holes}
"""The steps on labels that a pack can take along, by their words in a recipe."""
