"""Drawn images with masks, of any size, number of channels and classes: enough for a pass to calibrate and to train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.data.dataset.cases import ROLES, Case, Dataset, Fit, FloatArray, MaskArray, Normalization, Spacing
from compress.data.dataset.tiles import Size

CASES = 4
"""Of each role."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Reads images that were drawn: whole numpy arrays, normalized and of the network's size already."""

    axes: str = "HW"
    scale: str = "none"
    unit: str = "px"
    resize: str = "none"

    def channel_order(self, channels: int) -> str:
        """They are noise."""
        return f"{channels} of noise"

    def size(self, path: Path) -> Size:
        """That of the array, without its channels."""
        return tuple(np.load(path, mmap_mode="r").shape[1:])

    def spacing(self, path: Path) -> Spacing | None:
        """Not known."""
        return None

    def image(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        """The array itself (CHW)."""
        return np.asarray(np.load(path))

    def mask(self, path: Path) -> MaskArray:
        """The array itself (HW)."""
        return np.asarray(np.load(path))

    def checked(self, case: Case) -> tuple[MaskArray, bool]:
        """Nothing can be wrong with it."""
        return self.mask(case.mask), False


def drawn(folder: Path, channels: int, size: Size, classes: int) -> Dataset:
    """A few cases of every role, written into a folder: noise, and masks of the rank of its first channel.

    Args:
        classes: the background included.
    """
    random = np.random.default_rng(0)
    cases = {role: [_case(folder, f"{role}{number}", random, channels, size, classes) for number in range(CASES)]
             for role in ROLES}  # fmt: skip
    return Dataset(
        cases=cases,
        class_names=("background", *(f"class{number}" for number in range(1, classes))),
        channels=channels,
        fit=Fit(size=size),
        reader=Arrays(axes="HW" if len(size) == 2 else "RAS"),
        normalization=Normalization(),
        batch=2,
        source="drawn",
    )


def _case(folder: Path, name: str, random: np.random.Generator, channels: int, size: Size, classes: int) -> Case:
    image_CHW = random.standard_normal((channels, *size), np.float32)
    edges = np.quantile(image_CHW[0], np.arange(1, classes) / classes)
    paths = folder / f"{name}_image.npy", folder / f"{name}_mask.npy"
    np.save(paths[0], image_CHW)
    np.save(paths[1], np.digitize(image_CHW[0], edges).astype(np.uint8))
    return Case(name=name, image=paths[0], mask=paths[1])
