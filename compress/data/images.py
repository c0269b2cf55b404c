"""Images as files (PNG, JPEG, TIFF), read with Pillow; their masks hold one class index a pixel.

Shape legend: C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from compress.data.cases import Case, Fit, FloatArray, MaskArray, Spacing
from compress.errors import DataError
from compress.tiles import Size

# Images larger than any scanner or endoscope makes are decompression bombs; Pillow would only warn.
MOST_PIXELS = 178_956_970

SIXTEEN_BIT = ("I;16", "I;16B", "I;16L")
"""Pillow's modes of 16-bit gray, in either byte order."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Reads images and masks."""

    known_spacing: Spacing | None = None
    """Height and width of one pixel of every original image in mm; None when unknown."""
    axes: ClassVar[str] = "HW"
    scale: ClassVar[str] = "pixel / largest pixel value"

    @property
    def unit(self) -> str:
        return "px" if self.known_spacing is None else "mm"

    def size(self, path: Path) -> Size:
        """Height and width, from the header alone."""
        with _opened(path) as image:
            return image.height, image.width

    def spacing(self, path: Path) -> Spacing | None:
        return self.known_spacing

    def image(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        """The image (CHW, 0..1), fitted by Pillow: bilinear, antialiased."""
        image = _open_image(path)
        height, width = fit.inner((image.height, image.width))
        if image.mode in SIXTEEN_BIT:
            # Resized as float, since Pillow resizes integers over 8 bits coarsely.
            gray = Image.fromarray(np.asarray(image).astype(np.float32))
            fitted_HW = np.asarray(_resized(gray, height, width), np.float32) / np.float32(65535)
            fitted_CHW = np.repeat(fitted_HW[None], channels, axis=0)
        else:
            fitted = np.asarray(_resized(_as_8bit(image, channels), height, width), np.float32) / 255
            fitted_CHW = np.ascontiguousarray(fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1))
        return fit.padded(fitted_CHW)

    def mask(self, path: Path) -> MaskArray:
        """The class indices (HW); palette masks give their palette index."""
        mask = _decoded(path)
        if mask.mode not in ("L", "P", "1", "I", *SIXTEEN_BIT):
            raise DataError(f"{path}: a mask holds one class index a pixel, but this one is {mask.mode}")
        mask_HW = np.asarray(mask)
        for index in (mask_HW.min(), mask_HW.max()):
            if not 0 <= index <= 255:
                raise DataError(f"{path}: class {index} does not fit in 0..255")
        return mask_HW.astype(np.uint8)

    def checked(self, case: Case) -> MaskArray:
        image = _open_image(case.image)
        mask_HW = self.mask(case.mask)
        if image.size != (mask_HW.shape[1], mask_HW.shape[0]):
            raise DataError(
                f"{case.mask}: the mask is {mask_HW.shape[1]}x{mask_HW.shape[0]}, its image "
                f"{case.image.name} is {image.width}x{image.height}: they must be equal"
            )
        return mask_HW


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _open_image(path: Path) -> Image.Image:
    image = _decoded(path)
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise DataError(f"{path}: {kind} pixels have no known range; save it as 8-bit or unsigned 16-bit")
    return image


def _decoded(path: Path) -> Image.Image:
    with _opened(path) as image:
        if image.width * image.height > MOST_PIXELS:
            raise DataError(f"{path}: {image.width}x{image.height} is too large to be a medical frame")
        # Pillow would read the first page and say nothing of the rest of a volume.
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if pages > 1:
            raise DataError(f"{path}: holds {pages} pages; save each as a file of its own")
        image.load()
        return image


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image while its file is open; what goes wrong meanwhile is told of the file."""
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but the split lists it") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image that can be read (PNG, JPEG or TIFF)") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged or unreadable image ({error})") from None


def _as_8bit(image: Image.Image, channels: int) -> Image.Image:
    """Gray (ITU-R 601 luma) for one channel, RGB for three."""
    if image.mode == "P":
        # Straight to RGB, Pillow warns of a palette that has transparent colours.
        image = image.convert("RGBA")
    if channels == 1:
        return image if image.mode == "L" else image.convert("RGB").convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")
