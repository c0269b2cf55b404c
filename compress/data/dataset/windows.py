"""nnU-Net's sliding window: tiles in steps, a Gaussian over each, answers of mirrored tiles averaged.

Legend: C channels, K classes, D, H, W the axes of a volume, h and w (or d, h, w) those of a tile. A network that takes
slices has tiles of one slice.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from compress.data.dataset.tiles import Corner, Size, by
from compress.errors import NotHere

Floats = NDArray[np.float32]
SIGMA = 1 / 8
"""Deviation of the Gaussian over a tile, of the tile's side."""
AXES = 3
"""Of every volume."""
TOP = 10.0
"""The Gaussian's middle: nnU-Net keeps it in 16 bits, whose least number is then reached later."""


def slid(
    infer: Callable[[Floats], Floats], image_CDHW: Floats, size: Size, overlap: float, mirrored: Sequence[int]
) -> Floats:
    """The logits (KDHW) of a volume of any size, tile by tile.

    Args:
        infer: logits (1Khw or 1Kdhw) of one tile (1Chw or 1Cdhw).
        overlap: the share of a tile's length that its neighbour covers at least.
        mirrored: axes of the tile; it is answered mirrored along each set of them too, and the answers are averaged.

    Raises:
        NotHere: if the network answers at another size than it was given.
    """
    padded_CDHW, inside = _padded(image_CDHW, size)
    weights = _gaussian(size)
    total_DHW = np.zeros(padded_CDHW.shape[1:], np.float32)
    sums_KDHW: Floats | None = None
    for corner in _corners(padded_CDHW.shape[1:], size, overlap):
        place = (
            slice(None),
            *(slice(start, start + side) for start, side in zip(corner, _sides(corner, size), strict=True)),
        )
        answer = _mirrored(infer, _flat(padded_CDHW[place], size), mirrored)
        if answer.shape[1:] != tuple(size):
            raise NotHere(f"it answers {by(answer.shape[1:])} voxels for a tile of {by(size)}")
        if sums_KDHW is None:
            sums_KDHW = np.zeros((len(answer), *padded_CDHW.shape[1:]), np.float32)
        sums_KDHW[place] += (answer * weights).reshape(len(answer), *_sides(corner, size))
        total_DHW[place[1:]] += weights.reshape(_sides(corner, size))
    assert sums_KDHW is not None
    sums_KDHW /= total_DHW
    return sums_KDHW[inside]


def window(pixels: NDArray[Any], corner: Corner, size: Size) -> NDArray[Any]:
    """The tile (..., h, w) of a volume (..., D, H, W) at this corner; beyond the volume's ends are zeros."""
    sides = _sides(corner, size)
    before = pixels.ndim - len(corner)
    around, place = [(0, 0)] * before, [slice(None)] * before
    for start, side, full in zip(corner, sides, pixels.shape[before:], strict=True):
        around.append((max(0, -start), max(0, start + side - full)))
        place.append(slice(max(0, start), max(0, start) + side))
    return _flat(np.ascontiguousarray(np.pad(pixels, around)[tuple(place)]), size)


def drawn(mask_DHW: NDArray[np.uint8], size: Size, name: str, which: Corner | None) -> Corner:
    """The corner of one tile of a volume: the one in its middle, or that which is drawn for a number.

    Every other one that is drawn lies about a foreground voxel where there is one, as nnU-Net draws its own.

    Args:
        which: the number, alone; None is the middle.
    """
    full = mask_DHW.shape
    sides = _sides(full, size)
    if which is None:
        return tuple(int((all_ - side) / 2) for all_, side in zip(full, sides, strict=True))
    (number,) = which
    seed = int.from_bytes(hashlib.sha256(f"{name} {number}".encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    foreground = np.argwhere(mask_DHW) if number % 2 == 0 else np.empty((0, len(full)))
    corner = []
    about = random.choice(foreground) if len(foreground) else None
    for axis, (all_, side) in enumerate(zip(full, sides, strict=True)):
        last = all_ - side
        start = random.integers(0, max(0, last) + 1) if about is None else int(about[axis]) - side // 2
        corner.append(int(last / 2) if last < 0 else int(np.clip(start, 0, last)))
    return tuple(corner)


def _sides(whole: Sequence[int], size: Size) -> Size:
    """The sides of a tile along each axis of a volume: a slice is one deep."""
    return (1,) * (len(whole) - len(size)) + tuple(size)


def _flat(tile: NDArray[Any], size: Size) -> NDArray[Any]:
    """A tile (..., d, h, w) as the network takes it: without the axis along which it is one slice."""
    return tile.reshape(*tile.shape[:-AXES], *size)


def _padded(image_CDHW: Floats, size: Size) -> tuple[Floats, tuple[slice, ...]]:
    """The volume with zeros around it, where it is smaller than a tile; and where it lies in that."""
    full = image_CDHW.shape[1:]
    lacking = [max(0, side - has) for side, has in zip(_sides(full, size), full, strict=True)]
    around = [(0, 0), *((rest // 2, rest - rest // 2) for rest in lacking)]
    inside = (slice(None), *(slice(rest // 2, rest // 2 + has) for rest, has in zip(lacking, full, strict=True)))
    return (np.pad(image_CDHW, around) if any(lacking) else image_CDHW), inside


def _corners(full: Size, size: Size, overlap: float) -> Iterator[Corner]:
    sides = _sides(full, size)
    steps = [
        _starts(has, side, 1.0 if index < len(full) - len(size) else 1 - overlap)
        for index, (has, side) in enumerate(zip(full, sides, strict=True))
    ]
    return itertools.product(*steps)


def _starts(full: int, side: int, step: float) -> list[int]:
    """Where tiles begin along one axis, evenly, at most `step` of a tile from each other."""
    count = math.ceil((full - side) / (side * step)) + 1
    apart = (full - side) / max(1, count - 1)
    return [round(apart * index) for index in range(count)]


@lru_cache(maxsize=2)
def _gaussian(size: Size) -> Floats:
    point = np.zeros(size)
    point[tuple(side // 2 for side in size)] = 1
    weights = ndimage.gaussian_filter(point, [side * SIGMA for side in size], 0, mode="constant", cval=0)
    rounded = (weights / weights.max() * TOP).astype(np.float16).astype(np.float32)
    # No voxel may have weight 0: what is divided by it is no number.
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded


def _mirrored(infer: Callable[[Floats], Floats], tile: Floats, mirrored: Sequence[int]) -> Floats:
    """The mean of the answers (Khw) to a tile (Chw) and to all of its mirror images."""
    sets = [axes for count in range(len(mirrored) + 1) for axes in itertools.combinations(mirrored, count)]
    total: Floats | None = None
    for axes in sets:
        flipped = tuple(axis + 1 for axis in axes)
        asked = np.ascontiguousarray(np.flip(tile, flipped))[None]
        # A runtime may give its own buffer.
        answer = np.flip(np.array(infer(asked)[0], np.float32), flipped)
        total = answer if total is None else total + answer
    assert total is not None
    return total / np.float32(len(sets))
