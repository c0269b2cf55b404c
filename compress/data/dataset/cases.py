"""What a data set is to the rest of the toolchain: cases with a role, read and fitted to the network.

Shape legend: C channels, H height, W width; a mask_HW holds one class index a pixel. For volumes HW stands for three
axes, and a pixel is a voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.annotated import files_of
from compress.data.dataset.faults import Look, faults
from compress.data.dataset.frames import Frame, Framed
from compress.data.dataset.hashes import by_bytes, by_dates
from compress.data.dataset.masks import NotIndices
from compress.data.dataset.normalization import FloatArray as FloatArray  # noqa: PLC0414  whoever has a case has these
from compress.data.dataset.normalization import Normalization as Normalization  # noqa: PLC0414
from compress.data.dataset.restore import Way
from compress.data.dataset.tiles import Corner, Size, cut, middle
from compress.data.dataset.windows import drawn, window
from compress.errors import DataError
from compress.progress import bar

Role = Literal["train", "calibration", "val", "test"]
ROLES: tuple[Role, ...] = ("train", "calibration", "val", "test")
How = Literal["resize", "pad", "tile"]
Spacing = tuple[float, ...]
"""Length of a pixel along each axis, in mm."""
Pixels = TypeVar("Pixels", bound=np.generic)
MaskArray = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and its mask."""

    name: str
    image: Path
    mask: Path
    patient: str | None = None
    corner: Corner | None = None
    """The one tile of the image that is meant, or its number alone where tiles are drawn; None means all of it."""
    told: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)
    """What else split.csv says of it: other columns and their values, of which no result depends."""

    @property
    def unit(self) -> str:
        """What is resampled and averaged as one: the patient where known, else the case."""
        return self.patient or self.name


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How an image of any size meets a network of one input size, and the way back."""

    size: Size
    """Height and width (of volumes three sides) of the network's input, in pixels."""
    how: How | Literal["nnunet"] = "resize"
    """resize squashes to the size; pad keeps the aspect and fills the end of each axis (bottom and right) with zeros;
    tile keeps the image as it is and takes it piece by piece, mirrored where it ends; nnunet does as nnU-Net."""
    overlap: float = 0.25
    """The share of a tile's length that its neighbour covers too."""
    spacing: Spacing | None = None
    """What the pixels of an image in tiles are resampled to first; None leaves them as they are."""
    restored_from: Way = "probabilities"
    """What is brought back to an image's own size: probabilities (linearly, then the largest), or labels (nearest)."""

    mirrored: tuple[int, ...] = ()
    """Axes of a tile along which the network is asked mirrored too, and its answers averaged (nnunet)."""

    @property
    def in_tiles(self) -> bool:
        """Whether the network sees an image piece by piece, so that what is seen has any size."""
        return self.how in ("tile", "nnunet")

    def inner(self, original: Size, spacing: Spacing | None = None) -> Size:
        """The size at which the network sees an image of this size and spacing, without what is padded around it."""
        if self.how == "resize":
            return self.size
        if self.how == "pad":
            scales = [min(side / full for side, full in zip(self.size, original, strict=True))] * len(original)
        elif self.spacing is not None and spacing is not None:
            scales = [theirs / ours for theirs, ours in zip(spacing, self.spacing, strict=True)]
        else:
            return original
        return tuple(max(1, round(full * scale)) for full, scale in zip(original, scales, strict=True))

    def padded(self, pixels: NDArray[Pixels], fill: int = 0) -> NDArray[Pixels]:
        """Pixels of the inner size (..., H, W), filled up to the network's."""
        if self.how != "pad":
            return pixels
        lacking = [side - has for side, has in zip(self.size, _size(pixels, self.size), strict=True)]
        around = [(0, 0)] * (pixels.ndim - len(lacking)) + [(0, rest) for rest in lacking]
        return np.pad(pixels, around, constant_values=fill)

    def mask(self, mask_HW: MaskArray, fill: int = 0, spacing: Spacing | None = None) -> MaskArray:
        """The mask at the network's size (nearest neighbour)."""
        return self.padded(_nearest(mask_HW, self.inner(mask_HW.shape, spacing)), fill)

    def restore(self, labels_HW: MaskArray, original: Size) -> MaskArray:
        """Labels of the network's size, brought back to the original one."""
        return _nearest(self.unpadded(labels_HW, original), original)

    def unpadded(self, pixels: NDArray[Pixels], original: Size) -> NDArray[Pixels]:
        """What `padded` was given (..., H, W)."""
        inside: Any = (..., *map(slice, self.inner(original)))
        return pixels[inside] if self.how == "pad" else pixels

    @property
    def padding(self) -> str | None:
        """What is added around an image of another shape, in words; None where nothing is."""
        words = {
            "pad": "0 (before normalization) at the end of each axis",
            "tile": "the image, mirrored",
            "nnunet": "0 (after normalization) on both sides of each axis",
        }
        return words.get(self.how)


def _nearest(labels_HW: MaskArray, size: Size) -> MaskArray:
    """Labels of another size, each pixel that of the place its middle falls on."""
    if labels_HW.shape == size:
        return labels_HW
    # Summed up as Pillow does, which rounds now and then to the neighbour of what a product gives.
    steps = (np.r_[old / new / 2, np.full(new - 1, old / new)] for old, new in zip(labels_HW.shape, size, strict=True))
    return labels_HW[np.ix_(*(np.add.accumulate(each).astype(int) for each in steps))]


class Reader(Protocol):
    """How the files of one kind of data are read. What is wrong with one is raised as DataError, with its name."""

    @property
    def axes(self) -> str:
        """What the axes of an image run along, a letter each: "HW", or such as "RAS" (right, anterior, superior)."""
        ...

    @property
    def scale(self) -> str:
        """How a file's values are brought to 0..1, in words: a device must do the same."""
        ...

    @property
    def unit(self) -> str:
        """What distances are in: "mm", or "px" where the spacing is not known."""
        ...

    @property
    def resize(self) -> str:
        """How an image gets another size, in words: a device must do the same."""
        ...

    def channel_order(self, channels: int) -> str:
        """What the channels of an image are, such as "RGB", before a normalization turns them."""
        ...

    def size(self, path: Path) -> Size:
        """The size of an image, from its header alone."""
        ...

    def spacing(self, path: Path) -> Spacing | None:
        """The spacing of an image, from its header alone; None where it is not known."""
        ...

    def image(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        """The image (CHW, 0..1) at the fit's size; in tiles all of it."""
        ...

    def mask(self, path: Path) -> MaskArray:
        """Class indices (HW, uint8) at the original size."""
        ...

    def checked(self, case: Case) -> tuple[MaskArray, bool]:
        """The mask, once both files are read whole and belong together; and whether the image is of one value."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Cases by role, and how they are read. Roles never share a case."""

    cases: Mapping[Role, Sequence[Case]]
    class_names: tuple[str, ...]
    """The name of every mask index, background first."""
    channels: int
    fit: Fit
    reader: Reader
    normalization: Normalization
    ignore: int | None = None
    """Mask index whose pixels count neither in training nor in any score."""
    tolerance: float = 2.0
    """Distance under which two surfaces agree (normalized surface Dice), in mm, or pixels without spacing."""
    batch: int = 8
    """Cases in one step of training."""
    source: str = field(default="", compare=False)
    """Where the data came from, for messages and the report."""

    def __post_init__(self) -> None:
        fault = self.normalization.fault_for(self.channels, self.reader.scale)
        if fault is not None:
            raise DataError(f"{self.source}: {fault}")

    def pixels(self, case: Case) -> FloatArray:
        """The image at the network's size, scaled to 0..1 but not normalized (CHW).

        In tiles: the tile that the case means, or all of the image, mirrored to at least one tile.
        """
        return self._part(self.whole_pixels(case), case)

    def image(self, case: Case) -> FloatArray:
        """The network's input for this case: normalized, float32, CHW; the tile in the middle of a whole image."""
        pixels_CHW = self.whole_pixels(case)
        if self.fit.how == "tile":
            corner = case.corner or middle(_size(pixels_CHW, self.fit.size), self.fit.size)
            return self.normalization.of(pixels_CHW)(cut(pixels_CHW, corner, self.fit.size))
        return self.normalization.of(pixels_CHW)(self._part(pixels_CHW, case))

    def normalized(self, pixels_CHW: FloatArray, case: Case) -> FloatArray:
        """What became of a case's pixels, normalized: of a tile by what its whole image holds."""
        normalization = self.normalization
        if normalization.z_score is not None and case.corner is not None:
            normalization = normalization.of(self.whole_pixels(case))
        return normalization(pixels_CHW)

    def whole_pixels(self, case: Case) -> FloatArray:
        """The image that tiles are taken from, whole (CHW, 0..1); without tiles, as `pixels`."""
        return self.reader.image(case.image, self.channels, self.fit)

    def mask(self, case: Case) -> MaskArray:
        """Class indices at the original size (HW)."""
        return self.reader.mask(case.mask)

    def size_of(self, case: Case) -> Size:
        """The size of the original image, from its header alone."""
        return self.reader.size(case.image)

    def spacing_of(self, case: Case) -> Spacing | None:
        """The spacing of the original image, from its header alone; None where it is not known."""
        return self.reader.spacing(case.image)

    def fitted_mask(self, case: Case) -> MaskArray:
        """Class indices at the network's size; padding gets the ignore index where there is one.

        In tiles: those of `pixels`.
        """
        return self._part(self.whole_mask(case), case)

    def whole_mask(self, case: Case) -> MaskArray:
        """Class indices of `whole_pixels` (HW)."""
        return self.as_seen(case, self.mask(case), fill=self.ignore or 0)

    def as_seen(self, case: Case, labels_HW: MaskArray, fill: int = 0) -> MaskArray:
        """Labels at the original size (HW) brought to that of `whole_pixels`, with `fill` where it is padded."""
        frame = self.frame(case)
        return frame.mask(labels_HW) if frame else self.fit.mask(labels_HW, fill, self.spacing_of(case))

    def frame(self, case: Case) -> Frame | None:
        """Where what the network sees lies in the original image; None where that is all of it."""
        return self.reader.frame(case.image) if isinstance(self.reader, Framed) else None

    def _part(self, pixels: NDArray[Pixels], case: Case) -> NDArray[Pixels]:
        """The tile of a case, or all of it, mirrored to at least one tile; where there are no tiles, all of it."""
        if self.fit.how == "nnunet":
            corner = drawn(self.whole_mask(case), self.fit.size, case.name, case.corner)
            return window(pixels, corner, self.fit.size)
        return _tile(pixels, case.corner, self.fit.size) if self.fit.how == "tile" else pixels

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
        return _measured((self.pixels(case) for case in cases), len(cases), self.channels, self.reader.scale)

    def fingerprint(self) -> str:
        """Changes when a case, a file (size or time of change) or the way of reading or scoring changes."""
        read = (self.class_names, self.channels, self.fit, self.reader, self.normalization, self.ignore)
        return by_dates((*read, self.tolerance), self.cases, ROLES, self.files)

    def sha256(self) -> str:
        """Of the bytes of every file, with the role and name of its case: the same wherever the data lies."""
        return by_bytes(self.cases, ROLES, self.files)

    def files(self, case: Case) -> tuple[Path, ...]:
        """Those of all channels, and the mask's."""
        images = self.reader.files(case.image) if isinstance(self.reader, Framed) else (case.image,)
        return *images, *files_of(case.mask)

    def check(self, roles: Sequence[Role] = ROLES) -> Mapping[Role, Sequence[tuple[Case, Look]]]:
        """Decode every image and mask of these roles once, so that nothing is found out half-way.

        Returns:
            What was seen of each case, by role.

        Raises:
            DataError: naming the first file (in split order) that is damaged, does not match its
                partner in size, or holds a class index that is not in `class_names`.
        """
        # An image and its mask may be there once for each tile.
        cases = list({(case.image, case.mask): case for role in roles for case in self.cases[role]}.values())
        looks = self.looks(cases)
        told = faults(cases, looks, self.class_names)
        if told:
            raise DataError(told[0] + (f" (and {len(told) - 1} more files)" if len(told) > 1 else ""))
        seen = {(case.image, case.mask): look for case, look in zip(cases, looks, strict=True)}
        return {role: [(case, seen[case.image, case.mask]) for case in self.cases[role]] for role in roles}

    def faults(self, cases: Sequence[Case]) -> list[str]:
        """What is wrong with the files of these cases, a sentence for each faulty case; each file is decoded once."""
        return faults(cases, self.looks(cases), self.class_names)

    def looks(self, cases: Sequence[Case]) -> list[Look]:
        """What is seen of each of these cases when its files are read whole."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            return list(bar(pool.map(partial(_looked_at, self), cases), "checking the data", len(cases)))


def _tile(pixels: NDArray[Pixels], corner: Corner | None, size: Size) -> NDArray[Pixels]:
    if corner is not None:
        return cut(pixels, corner, size)
    full = _size(pixels, size)
    around = tuple(map(max, full, size))
    return pixels if around == full else cut(pixels, middle(full, around), around)


def _measured(images: Iterator[FloatArray], count: int, channels: int, scale: str) -> Normalization:
    sums = np.zeros((2, channels))
    for image_CHW in images:
        pixels = image_CHW.reshape(channels, -1)
        sums += np.stack([pixels.mean(1), np.square(pixels).mean(1)]) / count
    mean, std = sums[0], np.sqrt(np.maximum(sums[1] - sums[0] ** 2, 1e-8))
    return Normalization(mean=tuple(mean.round(4).tolist()), std=tuple(std.round(4).tolist()), scale=scale)


def _looked_at(data: Dataset, case: Case) -> Look:
    try:
        mask_HW, constant = data.reader.checked(case)
    except NotIndices as error:
        return Look(fault=error.advised(data.class_names))
    except DataError as error:
        return Look(fault=str(error))
    return Look(values=frozenset(np.unique(mask_HW).tolist()) - {data.ignore}, constant=constant)


def _size(pixels: NDArray[Any], like: Size) -> Size:
    """The sides of an image with any number of axes before them."""
    return pixels.shape[-len(like) :]
