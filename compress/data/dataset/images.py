"""Images as files (PNG, JPEG, TIFF), read with Pillow; their masks hold one class index a pixel.

Shape legend: C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from compress.data.dataset import channels as stacks
from compress.data.dataset.annotated import BACKGROUND, form_of
from compress.data.dataset.cases import Case, Fit, FloatArray, MaskArray, Spacing
from compress.data.dataset.channels import is_stack, read_stack
from compress.data.dataset.dicom import Window, is_dicom, read_frame, size_of, windowed
from compress.data.dataset.masks import (
    IGNORE,
    MANY,
    MaskValues,
    NotIndices,
    as_indices,
    soft_edges,
    told_as,
    whole_numbers,
)
from compress.data.dataset.tiles import Size
from compress.errors import DataError

# Images larger than any scanner or endoscope makes are decompression bombs; Pillow would only warn.
MOST_PIXELS = 178_956_970

SIXTEEN_BIT = ("I;16", "I;16B", "I;16L")
"""Pillow's modes of 16-bit gray, in either byte order."""
GRAY = ("1", "L", "P", "I", "F", *SIXTEEN_BIT)
"""Pillow's modes with one number a pixel."""
ALPHA = ("LA", "PA", "RGBA", "RGBa")
COLOUR = ("RGB", "RGBX", "CMYK", "YCbCr", *ALPHA)

ORIENTATION, PHOTOMETRIC = 0x0112, 262
"""Tags of EXIF and TIFF."""
WHITE_IS_ZERO = 0
TELLING = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
"""Where Pillow keeps what may hold an orientation."""
LAST_UPRIGHT = 4
"""Orientations above this swap height and width."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Reads images and masks."""

    known_spacing: Spacing | None = None
    """Height and width of one pixel of every original image in mm; None when unknown."""
    masks: MaskValues | None = None
    """Which class each stored value or colour of a mask is; None where they are class indices."""
    names: tuple[str, ...] = ()
    """The classes by name, background first: what annotations call regions."""
    window: Window | None = None
    """The values of gray images that become 0 and 1; None for the smallest and the largest that a pixel can be."""
    channels: int | None = None
    """How many the network takes; None where that is not known."""
    axes: ClassVar[str] = "HW"

    @property
    def scale(self) -> str:
        if self.window is None:
            return "pixel / largest pixel value"
        low, high = self.window
        return f"values from {low:g} to {high:g} (of DICOM after its rescale slope), clipped, to 0..1"

    @property
    def resize(self) -> str:
        when = "before" if self.window is None else "after"
        return (
            f"bilinear, antialiased when made smaller (Pillow's BILINEAR), width before height, {when} scaling to 0..1"
        )

    @property
    def unit(self) -> str:
        return "px" if self.known_spacing is None else "mm"

    def channel_order(self, channels: int) -> str:
        return {1: "gray (0.299 R + 0.587 G + 0.114 B)", 3: "RGB"}.get(channels, f"{channels} of the file")

    def size(self, path: Path) -> Size:
        """Height and width, from the header alone."""
        if is_stack(path, self.channels):
            return stacks.size_of(path)
        if is_dicom(path):
            return size_of(path)
        with _opened(path) as image:
            sides = image.height, image.width
            return sides[::-1] if _turned(image, path) > LAST_UPRIGHT else sides

    def spacing(self, path: Path) -> Spacing | None:
        return self.known_spacing

    def image(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        """The image (CHW, 0..1), fitted by Pillow: bilinear, antialiased."""
        if is_stack(path, channels):
            return self._stack(path, channels, fit)
        image = _open_image(path, self.window)
        height, width = fit.inner((image.height, image.width))
        if image.mode in (*SIXTEEN_BIT, "F"):
            # Resized as float, since Pillow resizes integers over 8 bits coarsely.
            gray = Image.fromarray(np.asarray(image).astype(np.float32))
            largest = np.float32(65535 if image.mode in SIXTEEN_BIT else 1)
            fitted_HW = np.asarray(_resized(gray, height, width), np.float32) / largest
            fitted_CHW = np.repeat(fitted_HW[None], channels, axis=0)
        else:
            fitted = np.asarray(_resized(_as_8bit(image, channels, path), height, width), np.float32) / 255
            fitted_CHW = np.ascontiguousarray(fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1))
        return fit.padded(fitted_CHW)

    def _stack(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        pixels_CHW = read_stack(path, channels, self.window)
        height, width = fit.inner(pixels_CHW.shape[1:])
        each = (_resized(Image.fromarray(one_HW), height, width) for one_HW in pixels_CHW)
        return fit.padded(np.stack([np.asarray(one, np.float32) for one in each]))

    def mask(self, path: Path) -> MaskArray:
        """The class indices (HW): the stored values themselves (of palettes the palette index), or as `masks` says."""
        form = form_of(path)
        if form is not None:
            return form.drawn(path, partial(self._index_of, path))
        image = _decoded(path)
        stored_HW = _stored(image, path, self.masks)
        if self.masks is None:
            return as_indices(stored_HW, path)
        return self.masks.indices(stored_HW, path, soft=_soft(image))

    def _index_of(self, path: Path, label: str) -> int:
        known = {**{name: index for index, name in enumerate(self.names)}, **dict.fromkeys(BACKGROUND, 0)}
        known |= {} if self.masks is None else dict(self.masks.labels)
        if label not in known:
            such = self.names[-1] if self.names else 1
            raise DataError(
                f"{path}: the label '{label}' is no class (there are {', '.join(self.names)}); name it in classes, or "
                f"say which it is: masks: {{{label}: {such}}}, or masks: {{{label}: {IGNORE}}}"
            )
        return known[label]

    def checked(self, case: Case) -> tuple[MaskArray, bool]:
        if is_stack(case.image, self.channels):
            pixels = np.moveaxis(read_stack(case.image, self.channels, self.window), 0, -1)
        else:
            pixels = np.asarray(_open_image(case.image, self.window))
        mask_HW = self.mask(case.mask)
        if pixels.shape[:2] != mask_HW.shape:
            raise DataError(
                f"{case.mask}: the mask is {mask_HW.shape[1]}x{mask_HW.shape[0]}, its image "
                f"{case.image.name} is {pixels.shape[1]}x{pixels.shape[0]}: they must be equal"
            )
        return mask_HW, bool((pixels == pixels[0, 0]).all())


def stored(path: Path) -> tuple[NDArray[Any], bool]:
    """What a mask's file holds (HW), and whether that is colours (0xRRGGBB) and not values."""
    image = _decoded(path)
    if image.mode in GRAY:
        return _values(image, path, None), False
    colour_HW = _colours(image, path)
    gray = bool((colour_HW == (colour_HW & 255) * 0x010101).all())
    return (colour_HW & 255, False) if gray else (colour_HW, True)


def _stored(image: Image.Image, path: Path, masks: MaskValues | None) -> NDArray[Any]:
    """What a mask's file holds (HW): values, or colours (0xRRGGBB) where `masks` names these."""
    if image.mode in GRAY:
        stored_HW = _values(image, path, masks)
        if masks is None or not masks.colours or image.mode == "P":
            return stored_HW
        if stored_HW.max() > 255:
            raise DataError(f"{path}: 16-bit gray holds {stored_HW.max()}, but masks names colours; name values there")
        return stored_HW.astype(np.int64) * (0xFFFFFF if image.mode == "1" else 0x010101)
    colour_HW = _colours(image, path)
    if masks is not None and masks.colours:
        return colour_HW
    gray = bool((colour_HW == (colour_HW & 255) * 0x010101).all())
    if gray and masks is not None:
        return colour_HW & 255
    found = np.unique(colour_HW & 255 if gray else colour_HW).tolist()
    fault = f"{path}: a mask holds one class index a pixel, but this one is {image.mode}"
    if len(found) > MANY:
        raise DataError(soft_edges(f"{fault} and", [told_as(value, not gray) for value in found], _soft(image)))
    raise NotIndices(f"{fault}, with the {'values' if gray else 'colours'}", found, colours=not gray)


def _soft(image: Image.Image) -> str:
    """What changes values in files of this format."""
    return "JPEG" if image.format in ("JPEG", "MPO") else ""


def _values(image: Image.Image, path: Path, masks: MaskValues | None) -> NDArray[Any]:
    """The gray or the palette index of every pixel (HW), or its palette's colour where `masks` names colours."""
    if image.mode == "P" and masks is not None and masks.colours:
        return _packed(image.convert("RGBA").convert("RGB"))
    if image.mode == "F":
        return whole_numbers(np.asarray(image), path)
    stored_HW = np.asarray(image)
    if image.mode != "1":
        return stored_HW
    # White is 1, or 255 as in the 8-bit masks beside it.
    known = dict(masks.values) if masks is not None and not masks.colours else {1: 1}
    return stored_HW.astype(np.uint8) * np.uint8(255 if 255 in known and 1 not in known else 1)


def _colours(image: Image.Image, path: Path) -> NDArray[Any]:
    """The colour of every pixel (HW, 0xRRGGBB), opacity left out where each colour has but one."""
    if image.mode not in ALPHA:
        return _packed(_converted(image, "RGB", path))
    rgba = image.convert("RGBA")
    colour_HW, opacity_HW = _packed(rgba.convert("RGB")), np.asarray(rgba.getchannel("A")).astype(np.int64)
    if (opacity_HW != opacity_HW[0, 0]).any():
        kinds = np.unique(colour_HW << 8 | opacity_HW) >> 8
        twice = kinds[:-1][kinds[1:] == kinds[:-1]]
        if len(twice):
            raise DataError(
                f"{path}: the colour {told_as(int(twice[0]), True)} has several opacities, so what is seen is not what "
                "is stored; save the mask without transparency"
            )
    return colour_HW


def _packed(rgb: Image.Image) -> NDArray[Any]:
    red, green, blue = np.moveaxis(np.asarray(rgb).astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    """The width first: Pillow 13 chooses an order by the sizes, others always take this one, and what is rounded to
    8 bits in between differs.
    """
    for size in ((width, image.height), (width, height)):
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
    return image


def _open_image(path: Path, window: Window | None) -> Image.Image:
    """An image of pixels from 0 to their largest value, or with a window of floats from 0 to 1."""
    if is_dicom(path):
        return read_frame(path, window)
    image = _decoded(path)
    if window is not None:
        if image.mode not in GRAY or image.mode == "P":
            raise DataError(
                f"{path}: is in colour ({image.mode}), which has no window: leave window out, or save it gray"
            )
        return Image.fromarray(windowed(np.asarray(image), window))
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise DataError(
            f"{path}: {kind} pixels have no known range; save it as 8-bit or unsigned 16-bit, or say which values "
            "become black and white: window: [-160, 240] (in data; compress init: --window=-160,240)"
        )
    if image.mode in SIXTEEN_BIT and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise DataError(f"{path}: 16-bit gray whose 0 is white is read otherwise by other software; save it inverted")
    if image.mode not in (*GRAY, *COLOUR):
        raise DataError(f"{path}: {image.mode} colours are not read; save it as RGB or gray")
    return image


def _decoded(path: Path) -> Image.Image:
    """The image, turned as its EXIF orientation says."""
    with _opened(path) as image:
        if image.width * image.height > MOST_PIXELS:
            raise DataError(f"{path}: {image.width}x{image.height} is too large to be a medical frame")
        # Pillow would read the first page and say nothing of the rest of a volume. A telephone's photograph (MPO) may
        # have a preview behind the picture.
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if pages > 1:
            raise DataError(f"{path}: holds {pages} pages or frames; save each as a file of its own")
        image.load()
        if _turned(image, path):
            ImageOps.exif_transpose(image, in_place=True)
        return image


def _turned(image: Image.Image, path: Path) -> int:
    """The EXIF orientation (2 to 8), which viewers and OpenCV apply; 0 for an image that is stored upright.

    Of a TIFF Pillow applies it by itself.
    """
    if image.format == "PNG" and not (TELLING & set(image.info) or _tells_late(path)):
        # Pillow would decode all of a PNG to look for EXIF data behind its pixels.
        return 0
    orientation: Any = 0 if image.format == "TIFF" else image.getexif().get(ORIENTATION)
    return int(orientation) if orientation in range(2, 9) else 0


def _tells_late(path: Path) -> bool:
    """Whether a PNG has chunks behind its pixels that may hold an orientation."""
    behind = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if behind and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            behind = behind or kind == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image while its file is open; what goes wrong meanwhile is told of the file."""
    try:
        # Not by its name: Pillow 13 maps an uncompressed TIFF into memory as if it were not turned.
        with path.open("rb") as file, Image.open(file) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but the split lists it") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image that can be read (PNG, JPEG or TIFF)") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged or unreadable image ({error})") from None


def _as_8bit(image: Image.Image, channels: int, path: Path) -> Image.Image:
    """Gray (ITU-R 601 luma) for one channel, RGB for three; transparency is left out, as OpenCV does."""
    if channels == 1:
        return image if image.mode == "L" else _converted(image, "RGB", path).convert("L")
    return _converted(image, "RGB", path)


def _converted(image: Image.Image, mode: str, path: Path) -> Image.Image:
    if image.mode == "P":
        # Straight to RGB, Pillow warns of a palette that has transparent colours.
        image = image.convert("RGBA")
    if image.mode not in (*GRAY, *COLOUR):
        raise DataError(f"{path}: {image.mode} colours are not read; save it as RGB or gray")
    return image if image.mode == mode else image.convert(mode)
