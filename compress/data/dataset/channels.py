"""Images of other numbers of channels than one and three: arrays of NumPy, and TIFF whose pages are channels.

Legend: C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from compress.data.dataset.dicom import Window, windowed
from compress.data.dataset.normalization import FloatArray
from compress.data.dataset.tiles import Size
from compress.errors import DataError

ARRAY = ".npy"
USUAL = (1, 3)
"""Channels that any image has, gray or in colour."""


def is_stack(path: Path, channels: int | None) -> bool:
    """Whether a file is read here: an array, or any file where a network takes another number of channels."""
    return path.suffix.lower() == ARRAY or (channels is not None and channels not in USUAL)


def size_of(path: Path) -> Size:
    """Height and width, from the header alone."""
    if path.suffix.lower() == ARRAY:
        return _channels_last(_array(path), path).shape[:2]
    with _opened(path) as image:
        return image.height, image.width


def read_stack(path: Path, channels: int | None, window: Window | None) -> FloatArray:
    """All channels (CHW), brought to 0..1 by the window, else by the largest that an unsigned integer can be.

    Raises:
        DataError: if it cannot be read, has another number of channels, or values without a range and no window.
    """
    stored_HWC = _channels_last(_array(path), path) if path.suffix.lower() == ARRAY else _pages(path)
    if channels is not None and stored_HWC.shape[2] != channels:
        raise DataError(f"{path}: has {stored_HWC.shape[2]} channels, and the network takes {channels}")
    stored_CHW = np.ascontiguousarray(np.moveaxis(stored_HWC, -1, 0))
    if window is not None:
        return windowed(stored_CHW, window)
    if stored_CHW.dtype.kind != "u" or stored_CHW.dtype.itemsize > 2:
        raise DataError(
            f"{path}: values of {stored_CHW.dtype} have no range of their own; save 8-bit or unsigned 16-bit, or say "
            "which become black and white: window: [0, 1] (in data; compress init: --window=0,1)"
        )
    return stored_CHW.astype(np.float32) / np.float32(np.iinfo(stored_CHW.dtype).max)


def seen(pixels_CHW: FloatArray) -> FloatArray:
    """What of an image can be looked at: gray and colour as they are, of others the first channel."""
    return pixels_CHW if len(pixels_CHW) in USUAL else pixels_CHW[:1]


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but the split lists it") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not an array of numbers that NumPy reads ({error})") from None
    if array.dtype.kind not in "uif" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise DataError(f"{path}: holds what are no numbers ({array.dtype}, NaN or infinite)")
    return array


def _channels_last(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """HW or HWC or CHW as HWC: channels are the last axis where it is the shortest, else the first."""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise DataError(f"{path}: has {array.ndim} axes; give height, width and channels")
    return array if array.shape[2] <= min(array.shape[:2]) else np.moveaxis(array, 0, -1)


def _pages(path: Path) -> NDArray[Any]:
    try:
        with _opened(path) as image:
            pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: damaged or unreadable image ({error})") from None
    if any(page.ndim != 2 or page.shape != pages[0].shape or page.dtype != pages[0].dtype for page in pages):
        raise DataError(f"{path}: its {len(pages)} pages are not gray, of one size and of one type: each is a channel")
    return np.stack(pages, axis=-1)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but the split lists it") from None
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path}: not an image that can be read ({error})") from None
