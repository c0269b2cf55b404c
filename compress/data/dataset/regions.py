"""Regions of an image as annotation programs write them down: polygons, and runs of pixels (RLE).

Legend: H height, W width, N points (x, y) in pixels, the first pixel from 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.walk import files_below
from compress.errors import DataError

BoolArray = NDArray[np.bool_]


def read_json(path: Path) -> Any:
    """What a JSON file holds; of the last few files it is kept.

    Raises:
        DataError: if it is none.
    """
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but the split lists it") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a JSON file that can be read ({error})") from None


def json_files(root: Path) -> list[Path]:
    """Those in a folder and all below it, in order of names."""
    return [path for path in files_below(root) if path.suffix.lower() == ".json"]


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def filled(points_N2: NDArray[np.float64], height: int, width: int) -> BoolArray:
    """The pixels (HW) whose middles lie in a polygon (those that it covers an even number of times are out)."""
    inside_HW = np.zeros((height, width + 1), np.int64)
    (x0, y0), (x1, y1) = points_N2.T, np.roll(points_N2, -1, axis=0).T
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    first = max(0, int(np.floor(low.min() - 0.5)))
    for row in range(first, min(height, int(np.ceil(high.max())) + 1)):
        middle = row + 0.5
        crossed = (low <= middle) & (middle < high)
        x = x0[crossed] + (middle - y0[crossed]) * (x1[crossed] - x0[crossed]) / (y1[crossed] - y0[crossed])
        starts = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
        np.add.at(inside_HW[row], starts, 1)
    return (np.cumsum(inside_HW, axis=1)[:, :width] % 2).astype(bool)


def of_runs(counts: Sequence[int], height: int, width: int) -> BoolArray:
    """The pixels (HW) of runs along columns, off first, as COCO counts them.

    Raises:
        ValueError: if they are not of so many pixels.
    """
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"runs of {sum(counts)} pixels, and the image has {height * width}")
    on = np.arange(len(counts)) % 2 == 1
    return np.repeat(on, counts).reshape(width, height).T


def counts_in(text: str) -> list[int]:
    """The runs in a compressed string of COCO: 5 bits a letter from the lowest on, each from the third less the one two
    before it (pycocotools, common/maskApi.c, rleFrString).
    """
    counts: list[int] = []
    number, shift = 0, 0
    for letter in text:
        code = ord(letter) - 48
        number |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, shift = 0, 0
    return counts
