"""A mask that a network answered with, as a file; and the image with it drawn in, to look at.

Legend: H height and W width of the image, C its channels.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.data.dataset.masks import IGNORED, MaskValues
from compress.report.drawing.palette import PALETTE

OPACITY = 0.35


def mask_png(labels_HW: NDArray[np.uint8], masks: MaskValues | None) -> bytes:
    """The mask as the run's data store masks: class indices, or the value or colour of each class."""
    stored = {index: value for value, index in reversed(masks.values if masks is not None else ()) if index != IGNORED}
    table = np.array([stored.get(index, index) for index in range(256)])
    stored_HW = table[labels_HW]
    if masks is not None and masks.colours:
        parts = [stored_HW >> 16 & 255, stored_HW >> 8 & 255, stored_HW & 255]
        return _png(Image.fromarray(np.stack(parts, axis=-1).astype(np.uint8)))
    return _png(Image.fromarray(stored_HW.astype(np.uint8 if stored_HW.max() < 256 else np.uint16)))


def overlay_png(image_CHW: NDArray[np.float32], labels_HW: NDArray[np.uint8]) -> bytes:
    """The image (0..1) with each class in its colour, seen through, and its outline."""
    gray_or_rgb = np.broadcast_to(image_CHW, (3, *image_CHW.shape[1:]))
    seen_HWC = np.moveaxis(gray_or_rgb, 0, -1) * 255
    edge_HW = _edges(labels_HW)
    for index in np.unique(labels_HW[labels_HW > 0]).tolist():
        colour = np.array([int(PALETTE[(index - 1) % len(PALETTE)][place : place + 2], 16) for place in (1, 3, 5)])
        inside_HW = labels_HW == index
        seen_HWC = np.where(inside_HW[..., None], seen_HWC * (1 - OPACITY) + colour * OPACITY, seen_HWC)
        seen_HWC = np.where((inside_HW & edge_HW)[..., None], colour, seen_HWC)
    return _png(Image.fromarray(seen_HWC.round().clip(0, 255).astype(np.uint8)))


def _edges(labels_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels beside one of another class."""
    edge_HW = np.zeros(labels_HW.shape, bool)
    down, right = labels_HW[1:] != labels_HW[:-1], labels_HW[:, 1:] != labels_HW[:, :-1]
    edge_HW[1:] |= down
    edge_HW[:-1] |= down
    edge_HW[:, 1:] |= right
    edge_HW[:, :-1] |= right
    return edge_HW


def _png(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "png")
    return written.getvalue()
