"""Overlap-tile: images larger than the network, piece by piece (Ronneberger et al. 2015, section 2).

Legend: C channels, K classes, H and W height and width of the image, h and w those of a tile. What has one number for
each axis has two for images and three for volumes, whose depth comes before H and h.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import EllipsisType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from compress.errors import NotHere

Size = tuple[int, ...]
"""Height and width, or depth, height and width."""
Corner = tuple[int, ...]
"""The place of a tile's first pixel on each axis; negative before the image begins."""
Pixels = TypeVar("Pixels", bound=np.generic)


def cut(pixels: NDArray[Pixels], corner: Corner, size: Size) -> NDArray[Pixels]:
    """A tile (..., h, w) of an image (..., H, W); beyond its borders the image is mirrored, as often as it takes."""
    shape = pixels.shape[-len(size) :]
    places = [_mirrored(start, length, full) for start, length, full in zip(corner, size, shape, strict=True)]
    tile: NDArray[Pixels] = pixels
    for axis, place in enumerate(places, start=pixels.ndim - len(size)):
        tile = tile.take(place, axis)
    return np.ascontiguousarray(tile)


def _mirrored(start: int, length: int, full: int) -> NDArray[np.intp]:
    """The places of start, start + 1, ... in an axis that is mirrored about its first and its last pixel."""
    period = max(1, 2 * (full - 1))
    place = np.arange(start, start + length) % period
    return np.where(place < full, place, period - place)


def middle(original: Size, size: Size) -> Corner:
    """The corner of the tile in the middle of an image, or around an image that is smaller."""
    return tuple(_centred(full, length) for full, length in zip(original, size, strict=True))


def central(size: Size, full: Size) -> tuple[EllipsisType | slice, ...]:
    """The index of the part of this size in the middle of a larger one: what an unpadded network answers for."""
    starts = middle(full, size)
    return ..., *(slice(start, start + side) for start, side in zip(starts, size, strict=True))


def _centred(full: int, length: int) -> int:
    """Of the two that are equally good, the one nearer to 0, as MONAI's."""
    return int((full - length) / 2)


def corners(original: Size, size: Size) -> list[Corner]:
    """The fewest tiles that cover an image, spread evenly; an axis shorter than the tile has it in its middle."""
    return list(itertools.product(*(_starts(full, length) for full, length in zip(original, size, strict=True))))


def _starts(full: int, length: int) -> list[int]:
    if full <= length:
        return [_centred(full, length)]
    return np.linspace(0, full - length, math.ceil(full / length)).round().astype(int).tolist()


class _OtherSize(Exception):
    """The network answers for another part of its tile than was thought."""

    def __init__(self, answer: Size) -> None:
        self.answer = answer


def blended(
    infer: Callable[[np.ndarray], np.ndarray], image_CHW: NDArray[np.float32], size: Size, answer: Size, overlap: float
) -> NDArray[np.float32]:
    """The logits (1KHW) of an image of any size, by a network that takes tiles of `size` one at a time.

    Neighbouring tiles share `overlap` of their length, and a pixel's logits are their mean, weighted
    by a Gaussian about each tile's middle (MONAI's sliding window). An unpadded network answers for
    the `answer` in the middle of each tile: its answers are laid side by side, as in the paper.

    Raises:
        NotHere: if the network answers for more pixels than it was given.
    """
    from monai.inferers import sliding_window_inference

    original = image_CHW.shape[1:]
    # MONAI lays an answer that is larger than the image about its middle.
    outside = [
        max(0, side - full) // 2 + margin
        for side, full, margin in zip(answer, original, middle(size, answer), strict=True)
    ]

    def predict(window: torch.Tensor, places: list[list[slice]]) -> torch.Tensor:
        ((_, _, *sides),) = places
        corner = tuple(side.start - before for side, before in zip(sides, outside, strict=True))
        logits_1Khw = infer(cut(image_CHW, corner, size)[None])
        if logits_1Khw.shape[2:] != answer:
            raise _OtherSize(logits_1Khw.shape[2:])
        # A runtime may give its own buffer, and MONAI multiplies in place.
        return torch.from_numpy(np.array(logits_1Khw, np.float32))

    try:
        logits: Any = sliding_window_inference(
            # MONAI is asked only where tiles lie: those of the image may be larger than the answers.
            torch.zeros(1, 1, *[1] * len(original)).expand(1, 1, *original),
            roi_size=answer,
            sw_batch_size=1,
            predictor=predict,
            overlap=overlap if answer == size else 0.0,
            mode="gaussian",
            with_coord=True,
        )
    except _OtherSize as other:
        if any(ours > full for ours, full in zip(other.answer, size, strict=True)):
            raise NotHere(f"it answers {by(other.answer)} pixels for a tile of {by(size)}") from None
        return blended(infer, image_CHW, size, other.answer, overlap)
    return np.asarray(logits)


def by(size: Size) -> str:
    """A size as people write it: 256x256."""
    return "x".join(map(str, size))
