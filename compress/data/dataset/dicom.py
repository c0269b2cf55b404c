"""Single frames of DICOM, read with pydicom: values after the rescale slope, gray turned so that 0 is black.

Legend: H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.data.dataset.normalization import FloatArray
from compress.data.dataset.tiles import Size
from compress.errors import DataError, MissingExtra

SUFFIXES = (".dcm", ".dicom")
Window = tuple[float, float]
"""Both ends, in the file's unit."""
GRAY = ("MONOCHROME1", "MONOCHROME2")
# What pydicom raises on files that are none, are damaged, or are packed in a way for which a decoder is missing (one of
# RuntimeError's kinds).
_DAMAGE = (OSError, ValueError, RuntimeError, AttributeError, LookupError, EOFError, TypeError)


def is_dicom(path: Path) -> bool:
    """Whether a file's name says so."""
    return path.suffix.lower() in SUFFIXES


def windowed(values: NDArray[Any], window: Window) -> FloatArray:
    """Values clipped to a window, whose ends become 0 and 1."""
    low, high = window
    return np.clip((values.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)


def size_of(path: Path) -> Size:
    """Height and width, from the header alone."""
    header = _read(path, pixels=False)
    return int(header.Rows), int(header.Columns)


def read_frame(path: Path, window: Window | None) -> Image.Image:
    """Its pixels: of 8 bits gray or RGB; with a window, or of more bits, floats of 0..1.

    Raises:
        DataError: if it cannot be read, has several frames, or values without a range and no window is given.
    """
    data = _read(path, pixels=True)
    kind = str(data.get("PhotometricInterpretation", ""))
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise DataError(f"{path}: holds {frames} frames; save each as a file of its own")
    if kind == "PALETTE COLOR":
        raise DataError(f"{path}: colours of a palette are not read; save it as RGB or gray")
    pixels, turned = _decoded(data, path), kind == "MONOCHROME1"
    if pixels.ndim == 3:
        if window is not None or pixels.dtype != np.uint8:
            raise DataError(
                f"{path}: is in colour ({pixels.dtype}), which has no window: leave window out, save 8 bits"
            )
        return Image.fromarray(np.ascontiguousarray(pixels))
    slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    bits = int(data.get("BitsStored", 8))
    if window is None and (bits > 8 or (slope, intercept) != (1, 0) or data.get("PixelRepresentation", 0)):
        raise DataError(f"{path}: {_unranged(data, bits)}")
    if window is None:
        gray = np.asarray(pixels * (255 // (2**bits - 1)) if bits < 8 else pixels, np.uint8)
        return Image.fromarray(255 - gray if turned else gray)
    values = windowed(pixels.astype(np.float64) * slope + intercept, window)
    return Image.fromarray(1 - values if turned else values)


def _unranged(data: Any, bits: int) -> str:
    centre, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    own = (
        ", such as window: [0, 400]"
        if centre is None or width is None
        else f"; its own is window: [{centre - width / 2:g}, {centre + width / 2:g}]"
    )
    return (
        f"values of {bits} bits have no range of their own: say which become black and white{own} (in data; compress "
        "init: --window=LOW,HIGH)"
    )


def _first(value: Any) -> float | None:
    """A number of a header, of several the first."""
    several = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return None if not len(several) or several[0] is None else float(several[0])


def _read(path: Path, *, pixels: bool) -> Any:
    pydicom = _pydicom()
    try:
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but the split lists it") from None
    except (*_DAMAGE, pydicom.errors.InvalidDicomError) as error:
        raise DataError(f"{path}: not a DICOM file that can be read ({error})") from None


def _decoded(data: Any, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(_pydicom().pixels.pixel_array(data))
    except _DAMAGE as error:
        raise DataError(f"{path}: its pixels cannot be decoded ({str(error).strip().splitlines()[0]})") from None


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise MissingExtra("pydicom", "dicom") from None
    return pydicom
