"""Max pooling that remembers where each maximum was, and unpooling back to there (arXiv 1511.00561, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Places(NamedTuple):
    """Where in its 2x2 window each maximum was; among equal ones it is the first, row by row, as torch's indices."""

    top: Tensor
    """In the upper row (BChw, bool)."""
    left_of_top: Tensor
    """On the left, if in the upper row."""
    left_of_bottom: Tensor
    """On the left, if in the lower row."""
    size: tuple[int, int]
    """Height and width before pooling."""


def pooled(x_BCHW: Tensor) -> tuple[Tensor, Places]:
    """The maxima (BChw) of 2x2 windows, and their places; an odd side's last row or column is in no window.

    The same as `max_pool2d(return_indices=True)`, by comparisons: TensorRT's parser takes no indices of a
    pooling. Only values of one tensor are compared, so rounding in a runtime cannot lose a place.
    """
    height, width = x_BCHW.shape[2] // 2 * 2, x_BCHW.shape[3] // 2 * 2
    upper, lower = x_BCHW[:, :, 0:height:2], x_BCHW[:, :, 1:height:2]
    first, second = upper[..., 0:width:2], upper[..., 1:width:2]
    third, fourth = lower[..., 0:width:2], lower[..., 1:width:2]
    top, bottom = torch.maximum(first, second), torch.maximum(third, fourth)
    size = x_BCHW.shape[2], x_BCHW.shape[3]
    places = Places(top=top >= bottom, left_of_top=first >= second, left_of_bottom=third >= fourth, size=size)
    return F.max_pool2d(x_BCHW, 2), places


def unpooled(x_BChw: Tensor, places: Places) -> Tensor:
    """Each value (BChw) at its place in a map (BCHW) of zeros: `max_unpool2d` with those indices."""
    none = torch.zeros_like(x_BChw)
    upper, lower = torch.where(places.top, x_BChw, none), torch.where(places.top, none, x_BChw)
    corners = (
        torch.where(places.left_of_top, upper, none),
        torch.where(places.left_of_top, none, upper),
        torch.where(places.left_of_bottom, lower, none),
        torch.where(places.left_of_bottom, none, lower),
    )
    x_BCHW = F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2), 2)
    height, width = places.size
    missing = 0, width - x_BCHW.shape[3], 0, height - x_BCHW.shape[2]
    return F.pad(x_BCHW, missing) if any(missing) else x_BCHW
