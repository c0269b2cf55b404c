"""Images and masks that are arrays in memory, of the network's own size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from compress.data.dataset.cases import ROLES, Case, Dataset, Fit, FloatArray, MaskArray, Normalization, Role, Spacing
from compress.data.dataset.tiles import Size
from compress.errors import DataError


@dataclass(frozen=True, kw_only=True, repr=False)
class ArrayReader:
    """Arrays by the names of their cases."""

    images: Mapping[str, FloatArray]
    masks: Mapping[str, MaskArray]
    axes: ClassVar[str] = "HW"
    scale: ClassVar[str] = "as given"
    unit: ClassVar[str] = "px"
    resize: ClassVar[str] = "none: images are of the network's size"

    def channel_order(self, channels: int) -> str:
        return f"{channels} as given"

    def size(self, path: Path) -> Size:
        return self.images[path.name].shape[1:]

    def spacing(self, path: Path) -> Spacing | None:
        return None

    def image(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        return self.images[path.name]

    def mask(self, path: Path) -> MaskArray:
        return self.masks[path.name]

    def checked(self, case: Case) -> tuple[MaskArray, bool]:
        image_CHW = self.images[case.image.name]
        return self.masks[case.mask.name], bool((image_CHW == image_CHW[:, :1, :1]).all())


class ArrayDataset(Dataset):
    """Cases that no file holds."""

    def fingerprint(self) -> str:
        """Changes when an array or the way of reading changes."""
        reader = self.reader
        assert isinstance(reader, ArrayReader)
        digest = hashlib.sha256(repr((self.class_names, self.fit, self.normalization, self.tolerance)).encode())
        for role in ROLES:
            for case in self.cases[role]:
                digest.update(f"{role} {case.name}".encode())
                digest.update(np.ascontiguousarray(reader.images[case.name]).tobytes())
                digest.update(np.ascontiguousarray(reader.masks[case.name]).tobytes())
        return digest.hexdigest()

    def sha256(self) -> str:
        """The same: there are no files."""
        return self.fingerprint()


Pairs = tuple[np.ndarray, np.ndarray]
"""Images (NCHW) and their masks (NHW, class indices)."""


def dataset_of(
    given: Mapping[Role, Pairs], class_names: Sequence[str], normalization: Normalization, batch: int = 8
) -> Dataset:
    """Arrays as data.

    Raises:
        DataError: if arrays are not of one size, do not belong together, or hold what is no class.
    """
    images, masks, cases = dict[str, FloatArray](), dict[str, MaskArray](), dict[Role, list[Case]]()
    for role, (images_NCHW, masks_NHW) in given.items():
        _check(role, images_NCHW, masks_NHW, len(class_names))
        names = [f"{role}-{number}" for number in range(len(images_NCHW))]
        images |= dict(zip(names, np.asarray(images_NCHW, np.float32), strict=True))
        masks |= dict(zip(names, np.asarray(masks_NHW, np.uint8), strict=True))
        cases[role] = [Case(name=name, image=Path(name), mask=Path(name)) for name in names]
    shapes = {image.shape for image in images.values()}
    if len(shapes) != 1:
        raise DataError(
            f"images are of {len(shapes)} shapes ({', '.join(map(str, sorted(shapes)[:3]))}); resize them to one"
        )
    ((channels, *size),) = shapes
    return ArrayDataset(
        cases={role: cases.get(role, []) for role in ROLES},
        class_names=tuple(class_names),
        channels=channels,
        fit=Fit(size=tuple(size)),
        reader=ArrayReader(images=images, masks=masks),
        normalization=replace(normalization, scale=None),
        batch=batch,
        source="arrays",
    )


def _check(role: Role, images_NCHW: np.ndarray, masks_NHW: np.ndarray, classes: int) -> None:
    if not len(images_NCHW):
        raise DataError(f"{role}: there is no image; give at least one")
    if images_NCHW.ndim not in (4, 5) or images_NCHW.shape[0] != len(masks_NHW):
        raise DataError(
            f"{role}: give images as NCHW (or NCDHW) and a mask for each, not {images_NCHW.shape} and {masks_NHW.shape}"
        )
    if masks_NHW.shape[1:] != images_NCHW.shape[2:]:
        raise DataError(
            f"{role}: masks are {masks_NHW.shape[1:]}, their images {images_NCHW.shape[2:]}; they must be equal"
        )
    if masks_NHW.min() < 0 or masks_NHW.max() >= classes:
        raise DataError(
            f"{role}: masks hold {masks_NHW.min()} to {masks_NHW.max()}, and there are {classes} classes from 0"
        )
    if not (masks_NHW == np.asarray(masks_NHW, np.uint8)).all():
        raise DataError(f"{role}: masks hold numbers between classes; give class indices, whole numbers from 0")
    if not np.isfinite(images_NCHW).all():
        raise DataError(f"{role}: images hold what is no number (NaN or infinite)")
