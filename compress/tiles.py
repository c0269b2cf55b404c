"""Overlap-tile: images larger than the network, piece by piece (Ronneberger et al. 2015, section 2).

Legend: C channels, K classes, H and W height and width of the image, h and w those of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from compress.errors import NotHere

Size = tuple[int, int]
Corner = tuple[int, int]
"""Row and column of a tile's first pixel; negative before the image begins."""
Pixels = TypeVar("Pixels", bound=np.generic)


def cut(pixels: NDArray[Pixels], corner: Corner, size: Size) -> NDArray[Pixels]:
    """A tile (..., h, w) of an image (..., H, W); beyond its borders the image is mirrored, as often as it takes."""
    rows, columns = (
        _mirrored(start, length, full) for start, length, full in zip(corner, size, pixels.shape[-2:], strict=True)
    )
    return np.ascontiguousarray(pixels[..., rows[:, None], columns])


def _mirrored(start: int, length: int, full: int) -> NDArray[np.intp]:
    """The places of start, start + 1, ... in an axis that is mirrored about its first and its last pixel."""
    period = max(1, 2 * (full - 1))
    place = np.arange(start, start + length) % period
    return np.where(place < full, place, period - place)


def middle(original: Size, size: Size) -> Corner:
    """The corner of the tile in the middle of an image, or around an image that is smaller."""
    row, column = (_centred(full, length) for full, length in zip(original, size, strict=True))
    return row, column


def _centred(full: int, length: int) -> int:
    """Of the two that are equally good, the one nearer to 0, as MONAI's."""
    return int((full - length) / 2)


def corners(original: Size, size: Size) -> list[Corner]:
    """The fewest tiles that cover an image, spread evenly; an axis shorter than the tile has it in its middle."""
    rows, columns = (_starts(full, length) for full, length in zip(original, size, strict=True))
    return [(row, column) for row in rows for column in columns]


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

    margin = middle(size, answer)
    height, width = image_CHW.shape[1:]
    # MONAI lays an answer that is larger than the image about its middle.
    shift = [max(0, side - full) // 2 for side, full in zip(answer, (height, width), strict=True)]

    def predict(window: torch.Tensor, places: list[list[slice]]) -> torch.Tensor:
        ((*_, rows, columns),) = places
        corner = (rows.start - shift[0] - margin[0], columns.start - shift[1] - margin[1])
        logits_1Khw = infer(cut(image_CHW, corner, size)[None])
        if logits_1Khw.shape[-2:] != answer:
            raise _OtherSize((logits_1Khw.shape[-2], logits_1Khw.shape[-1]))
        # A runtime may give its own buffer, and MONAI multiplies in place.
        return torch.from_numpy(np.array(logits_1Khw, np.float32))

    try:
        logits: Any = sliding_window_inference(
            # MONAI is asked only where tiles lie: those of the image may be larger than the answers.
            torch.zeros(1, 1, 1, 1).expand(1, 1, height, width),
            roi_size=answer,
            sw_batch_size=1,
            predictor=predict,
            overlap=overlap if answer == size else 0.0,
            mode="gaussian",
            with_coord=True,
        )
    except _OtherSize as other:
        if any(ours > full for ours, full in zip(other.answer, size, strict=True)):
            raise NotHere(f"it answers {_by(other.answer)} pixels for a tile of {_by(size)}") from None
        return blended(infer, image_CHW, size, other.answer, overlap)
    return np.asarray(logits)


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
