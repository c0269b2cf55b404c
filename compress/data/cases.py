"""What a data set is to the rest of the toolchain: cases with a role, read and fitted to the network.

Shape legend: C channels, H height, W width; a mask_HW holds one class index a pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pydantic
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import ConfigDict, Field

from compress.errors import DataError
from compress.progress import bar
from compress.tiles import Corner, Size, corners, cut, middle

Role = Literal["train", "calibration", "val", "test"]
ROLES: tuple[Role, ...] = ("train", "calibration", "val", "test")
How = Literal["resize", "pad", "tile"]
FloatArray = NDArray[np.float32]
Pixels = TypeVar("Pixels", bound=np.generic)
MaskArray = NDArray[np.uint8]

# Images larger than any scanner or endoscope makes are decompression bombs; Pillow would only warn.
MOST_PIXELS = 178_956_970

SIXTEEN_BIT = ("I;16", "I;16B", "I;16L")
"""Pillow's modes of 16-bit gray, in either byte order."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Normalization:
    """input = (pixel / largest pixel value - mean) / std, one mean and std for each channel."""

    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (1.0,)

    def __call__(self, pixels_CHW: FloatArray) -> FloatArray:
        """Normalize pixels already scaled to 0..1."""
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        std = np.asarray(self.std, np.float32)[:, None, None]
        return (pixels_CHW - mean) / std


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and its mask."""

    name: str
    image: Path
    mask: Path
    patient: str | None = None
    corner: Corner | None = None
    """The one tile of the image that is meant; None means all of it."""

    @property
    def unit(self) -> str:
        """What is resampled and averaged as one: the patient where known, else the case."""
        return self.patient or self.name


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How an image of any size meets a network of one input size, and the way back."""

    size: Size
    """Height and width of the network's input, in pixels."""
    how: How = "resize"
    """resize squashes to the size; pad keeps the aspect and fills the bottom and right with zeros; tile keeps
    the image as it is and takes it piece by piece, mirrored where it ends."""
    overlap: float = 0.25
    """The share of a tile's length that its neighbour covers too."""

    def image(self, pixels: Image.Image) -> Image.Image:
        """The image at the network's size (bilinear, antialiased)."""
        return self._fitted(pixels, Image.Resampling.BILINEAR, fill=0)

    def mask(self, mask_HW: MaskArray, fill: int = 0) -> MaskArray:
        """The mask at the network's size (nearest neighbour)."""
        return np.array(self._fitted(Image.fromarray(mask_HW), Image.Resampling.NEAREST, fill))

    def restore(self, labels_HW: MaskArray, original: tuple[int, int]) -> MaskArray:
        """Labels of the network's size, brought back to the original (height, width)."""
        if self.how == "pad":
            height, width = self._inner(original)
            labels_HW = labels_HW[:height, :width]
        if labels_HW.shape == original:
            return labels_HW
        back = Image.fromarray(labels_HW).resize((original[1], original[0]), Image.Resampling.NEAREST)
        return np.array(back)

    def _inner(self, original: tuple[int, int]) -> tuple[int, int]:
        if self.how == "resize":
            return self.size
        if self.how == "tile":
            return original
        scale = min(self.size[0] / original[0], self.size[1] / original[1])
        return max(1, round(original[0] * scale)), max(1, round(original[1] * scale))

    def _fitted(self, pixels: Image.Image, resampling: Image.Resampling, fill: int) -> Image.Image:
        height, width = self._inner((pixels.height, pixels.width))
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), resampling)
        if self.how == "tile" or (height, width) == self.size:
            return pixels
        padded = Image.new(pixels.mode, (self.size[1], self.size[0]), fill)
        padded.paste(pixels, (0, 0))
        return padded


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Cases by role, and how they are read. Roles never share a case."""

    cases: Mapping[Role, Sequence[Case]]
    class_names: tuple[str, ...]
    """The name of every mask index, background first."""
    channels: int
    fit: Fit
    normalization: Normalization
    ignore: int | None = None
    """Mask index whose pixels count neither in training nor in any score."""
    spacing: tuple[float, float] | None = None
    """Height and width of one pixel of the original image in mm; None when unknown."""
    tolerance: float = 2.0
    """Distance under which two surfaces agree (normalized surface Dice), in mm, or pixels without spacing."""
    batch: int = 8
    """Cases in one step of training."""
    source: str = field(default="", compare=False)
    """Where the data came from, for messages and the report."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            count = len(getattr(self.normalization, name))
            if count not in (1, self.channels):
                raise DataError(
                    f"{self.source}: the normalization has {count} numbers in {name}, but the network takes "
                    f"{self.channels} channels: give one number for each channel, or one for all"
                )

    def pixels(self, case: Case) -> FloatArray:
        """The image at the network's size, scaled to 0..1 but not normalized (CHW).

        In tiles: the tile that the case means, or all of the image, mirrored to at least one tile.
        """
        return self._part(self.whole_pixels(case), case)

    def image(self, case: Case) -> FloatArray:
        """The network's input for this case: normalized, float32, CHW; the tile in the middle of a whole image."""
        pixels_CHW = self.whole_pixels(case)
        if self.fit.how == "tile":
            corner = case.corner or middle(_size(pixels_CHW), self.fit.size)
            pixels_CHW = cut(pixels_CHW, corner, self.fit.size)
        return self.normalization(pixels_CHW)

    def whole_pixels(self, case: Case) -> FloatArray:
        """The image that tiles are taken from, of its original size (CHW, 0..1); without tiles, as `pixels`."""
        image = _open_image(case.image)
        if image.mode in SIXTEEN_BIT:
            # Resized as float, since Pillow resizes integers over 8 bits coarsely.
            gray = Image.fromarray(np.asarray(image).astype(np.float32))
            return np.repeat(np.asarray(self.fit.image(gray))[None] / 65535, self.channels, axis=0)
        fitted = np.asarray(self.fit.image(_as_8bit(image, self.channels)), np.float32) / 255
        return np.ascontiguousarray(fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1))

    def mask(self, case: Case) -> MaskArray:
        """Class indices at the original size (HW)."""
        return read_mask(case.mask)

    def size_of(self, case: Case) -> tuple[int, int]:
        """Height and width of the original image, from its header alone."""
        return size_of(case.image)

    def fitted_mask(self, case: Case) -> MaskArray:
        """Class indices at the network's size; padding gets the ignore index where there is one.

        In tiles: those of `pixels`.
        """
        return self._part(self.fit.mask(self.mask(case), fill=self.ignore or 0), case)

    def _part(self, pixels: NDArray[Pixels], case: Case) -> NDArray[Pixels]:
        """The tile of a case, or all of it, mirrored to at least one tile; where there are no tiles, all of it."""
        if self.fit.how != "tile":
            return pixels
        if case.corner is not None:
            return cut(pixels, case.corner, self.fit.size)
        full = _size(pixels)
        around = (max(full[0], self.fit.size[0]), max(full[1], self.fit.size[1]))
        return pixels if around == full else cut(pixels, middle(full, around), around)

    def whole_cases(self, role: Role) -> list[Case]:
        """The cases of a role, each meaning all of its image, as often as the image has tiles."""
        return [replace(case, corner=None) for case in self.cases[role]]

    def images(self, cases: Sequence[Case]) -> Iterator[FloatArray]:
        """Network inputs one at a time as 1CHW: constant memory, however many cases."""
        return (self.image(case)[None] for case in cases)

    def normalized_by(self, normalization: Normalization) -> Dataset:
        """The same data under another normalization."""
        return replace(self, normalization=normalization)

    def measured_normalization(self) -> Normalization:
        """Mean and deviation of every channel over the train cases (where there are many, some 200 to 400 of them)."""
        cases = self.cases["train"][:: max(1, len(self.cases["train"]) // 200)]
        sums = np.zeros((2, self.channels))
        for case in cases:
            pixels = self.pixels(case).reshape(self.channels, -1)
            sums += np.stack([pixels.mean(1), np.square(pixels).mean(1)]) / len(cases)
        mean, std = sums[0], np.sqrt(np.maximum(sums[1] - sums[0] ** 2, 1e-8))
        return Normalization(mean=tuple(mean.round(4).tolist()), std=tuple(std.round(4).tolist()))

    def fingerprint(self) -> str:
        """Changes when a case, a file (size or time of change) or the way of reading or scoring changes."""
        read = (self.class_names, self.channels, self.fit, self.normalization, self.ignore)
        text = [repr((*read, self.spacing, self.tolerance))]
        for role in ROLES:
            for case in self.cases[role]:
                stats = [path.stat() for path in (case.image, case.mask)]
                text.append(repr((role, case, [(stat.st_size, stat.st_mtime_ns) for stat in stats])))
        return hashlib.sha256("\n".join(text).encode()).hexdigest()

    def check(self, roles: Sequence[Role] = ROLES) -> None:
        """Decode every image and mask of these roles once, so that nothing is found out half-way.

        Raises:
            DataError: naming the first file (in split order) that is damaged, does not match its
                partner in size, or holds a class index that is not in `class_names`.
        """
        # An image and its mask may be there once for each tile.
        cases = list({(case.image, case.mask): case for role in roles for case in self.cases[role]}.values())
        with ThreadPoolExecutor(max_workers=2) as pool:
            found = pool.map(self._fault, cases)
            faults = [fault for fault in bar(found, "checking the data", len(cases)) if fault is not None]
        if faults:
            more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
            raise DataError(faults[0] + more)

    def _fault(self, case: Case) -> str | None:
        try:
            image = _open_image(case.image)
            mask_HW = read_mask(case.mask)
        except DataError as error:
            return str(error)
        if image.size != (mask_HW.shape[1], mask_HW.shape[0]):
            return (
                f"{case.mask}: the mask is {mask_HW.shape[1]}x{mask_HW.shape[0]}, its image "
                f"{case.image.name} is {image.width}x{image.height}: they must be equal"
            )
        indices = set(np.unique(mask_HW).tolist()) - {self.ignore}
        wrong = sorted(index for index in indices if index >= len(self.class_names))
        if wrong:
            return (
                f"{case.mask}: class {wrong[0]} is outside the {len(self.class_names)} classes "
                f"0..{len(self.class_names) - 1}; correct the mask, the number of classes, or set ignore: {wrong[0]}"
            )
        return None


def tiled(cases: Mapping[Role, Sequence[Case]], size: Size) -> dict[Role, list[Case]]:
    """The cases of images taken in tiles: each tile is a case in every role but "test", whose images stay whole.

    Raises:
        DataError: if the size of an image cannot be read.
    """
    found: dict[Role, list[Case]] = {"test": list(cases["test"])}
    for role in ROLES[:-1]:
        found[role] = [
            replace(case, corner=corner) for case in cases[role] for corner in corners(size_of(case.image), size)
        ]
    # The first few calibration cases must not all be of one image.
    found["calibration"].sort(key=lambda case: hashlib.sha256(f"{case.name} {case.corner}".encode()).digest())
    return found


def size_of(path: Path) -> Size:
    """Height and width of an image, from its header alone.

    Raises:
        DataError: if it is not there, or no image.
    """
    with _opened(path) as image:
        return image.height, image.width


def _size(pixels: NDArray[Any]) -> Size:
    return pixels.shape[-2], pixels.shape[-1]


def read_mask(path: Path) -> MaskArray:
    """The class indices of a mask file (HW, uint8); palette masks give their palette index.

    Raises:
        DataError: if the file is damaged, has more than one channel or an index outside 0..255.
    """
    mask = _decoded(path)
    if mask.mode not in ("L", "P", "1", "I", *SIXTEEN_BIT):
        raise DataError(f"{path}: a mask holds one class index a pixel, but this one is {mask.mode}")
    mask_HW = np.asarray(mask)
    for index in (mask_HW.min(), mask_HW.max()):
        if not 0 <= index <= 255:
            raise DataError(f"{path}: class {index} does not fit in 0..255")
    return mask_HW.astype(np.uint8)


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
