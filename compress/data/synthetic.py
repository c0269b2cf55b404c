"""An ultrasound phantom worth segmenting: a nerve-like bundle and vessels in layered tissue.

The image is formed as a scanner forms it, in five steps that each leave the artefact people know:
random scatterers (speckle), a point-spread function that widens away from the focus, attenuation
along each scan line (enhancement behind fluid, shadow behind bone), a noise floor, log compression.
Model: Dutt & Greenleaf 1996 (speckle under log compression); Jensen 1996 (Field II's scatterers
convolved with a depth-dependent point-spread function).
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import ndimage

from compress.data.dataset.cases import ROLES, Dataset, MaskArray, Normalization
from compress.data.folder import Folder
from compress.progress import bar
from export.files import write_bytes

CLASSES = ("background", "nerve", "vessel")
VERSION = 1  # Part of every folder's name: a phantom that changes must not meet its old images.
WIDTH_MM = 40.0  # A linear probe.

Map = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Synthetic:
    """Phantom images with three classes (background, nerve, vessel), the same for the same seed.

    They are written once as PNG under `root`, where they can be looked at, and then read like any
    other folder.
    """

    dims: ClassVar[int] = 2
    root: Path = Path("runs/phantom")
    """Where the phantoms are kept; each set of options gets a folder of its own below it."""
    seed: Annotated[int, Field(ge=0)] = 0
    train: Annotated[int, Field(ge=0)] = 400
    calibration: Annotated[int, Field(ge=0)] = 64
    val: Annotated[int, Field(ge=0)] = 40
    test: Annotated[int, Field(ge=0)] = 150
    size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (256, 256)
    """Height and width in pixels; the field of view stays 40 mm wide."""
    normalization: Normalization | None = None
    tolerance: Annotated[float, Field(gt=0)] = 0.5
    """Surface distance that still counts as agreement, in mm."""

    batch: Annotated[int, Field(ge=1)] = 8
    """Cases in one step of training."""

    def __call__(self, *, channels: int, classes: int) -> Dataset:
        """The phantom as a data set; images that are not there yet are made."""
        folder = self.root / f"v{VERSION}-seed{self.seed}-{self.size[0]}x{self.size[1]}-{self._counts()}"
        self._make_missing(folder)
        pixel = WIDTH_MM / self.size[1]
        read = Folder(
            root=folder,
            classes=CLASSES,
            size=self.size,
            normalization=self.normalization,
            spacing=(pixel, pixel),
            tolerance=self.tolerance,
            calibration=0,
            batch=self.batch,
        )
        return read(channels=channels, classes=classes)

    def few(self, most: int, root: Path) -> Self:
        """The same phantoms, at most so many of each role, kept under `root`."""
        counts = {role: min(getattr(self, role), most) for role in ROLES}
        return replace(self, root=root, **counts)

    def _counts(self) -> str:
        return f"{self.train}-{self.calibration}-{self.val}-{self.test}"

    def _rows(self) -> Iterator[dict[str, str]]:
        for role in ("train", "calibration", "val", "test"):
            for index in range(getattr(self, role)):
                name = f"{role}_{index:04d}.png"
                yield {"image": f"images/{name}", "mask": f"masks/{name}", "split": role}

    def _make_missing(self, folder: Path) -> None:
        rows = list(self._rows())
        # Both files of a case are there or it is made again: a killed run leaves no half case.
        missing = [row for row in rows if not all((folder / row[key]).exists() for key in ("image", "mask"))]
        if missing:
            for name in ("images", "masks"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            make = partial(_write_case, folder, self.seed, self.size)
            with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
                made = pool.map(make, missing, chunksize=8)
                for _ in bar(made, "making the phantom", len(missing)):
                    pass
        table = folder / "split.csv"
        if not table.exists():
            text = io.StringIO()
            writer = csv.DictWriter(text, ["image", "mask", "split"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_bytes(table, text.getvalue().encode())


def _write_case(folder: Path, seed: int, size: tuple[int, int], row: dict[str, str]) -> None:
    # Each case has its own generator, from its name: cases do not depend on how many there are.
    digest = hashlib.sha256(f"{VERSION}/{seed}/{size}/{row['image']}".encode()).digest()
    image, mask = phantom(np.random.default_rng(list(digest)), size)
    for path, pixels in ((row["mask"], mask), (row["image"], image)):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "png")
        write_bytes(folder / path, png.getvalue())


def phantom(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], MaskArray]:
    """One B-mode image and its class indices, both (height, width) uint8.

    Depth runs down the rows from the probe; pixels are square.
    """
    echo = _tissue(rng, size)
    loss = np.full(size, 1.0)  # attenuation of each pixel relative to soft tissue
    mask = np.zeros(size, np.uint8)

    if rng.random() < 0.9:
        _nerve(rng, echo, mask)
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        _vessel(rng, echo, loss, mask)
    for _ in range(rng.choice([0, 1, 2])):
        _distractor(rng, echo, mask)
    if rng.random() < 0.35:
        _bone(rng, echo, loss, mask)

    envelope = _scan(rng, echo, loss)
    return _log_compressed(rng, envelope), mask


def _grid(size: tuple[int, int]) -> tuple[Map, Map]:
    """Row and column of every pixel in units of the image's width: 0..1 across."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    return rows / size[1], columns / size[1]


def _smooth_noise(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Map:
    """Zero-mean, unit-deviation noise whose features are `scale` image widths across."""
    coarse = (max(4, int(size[0] / size[1] / scale)), max(4, int(1 / scale)))
    noise = rng.standard_normal(coarse)
    zoomed: Map = ndimage.zoom(
        noise, (size[0] / coarse[0], size[1] / coarse[1]), order=3, grid_mode=True, mode="nearest"
    )
    return zoomed / (zoomed.std() + 1e-9)


def _tissue(rng: np.random.Generator, size: tuple[int, int]) -> Map:
    """Echo strength of wavy tissue layers (skin, fat, fascia, muscle), before any structure."""
    depth, _ = _grid(size)
    wavy = depth + 0.025 * _smooth_noise(rng, size, 0.4)
    echo = np.full(size, rng.uniform(0.25, 0.6))
    for edge in np.sort(rng.uniform(0.05, 1.0, rng.integers(3, 7))):
        echo[wavy > edge] = rng.uniform(0.12, 0.8)
        fascia = np.exp(-(((wavy - edge) / rng.uniform(0.004, 0.009)) ** 2))
        echo += rng.uniform(0.3, 2.0) * fascia
    # Muscle fibres: streaks along the layers.
    streaks = ndimage.gaussian_filter(rng.standard_normal(size), (0.004 * size[1], 0.06 * size[1]))
    streaks /= streaks.std() + 1e-9
    return np.asarray(echo * np.exp(0.25 * streaks + 0.2 * _smooth_noise(rng, size, 0.2)))


def _blob(
    rng: np.random.Generator, size: tuple[int, int], radius: tuple[float, float], stretch: float, rough: float
) -> tuple[Map, tuple[float, float]]:
    """A closed shape: its level (under 1 inside) and its centre, in image widths.

    The outline is an ellipse whose radius varies with the angle by a few low harmonics.
    """
    depth, across = _grid(size)
    tall = size[0] / size[1]
    middle = (rng.uniform(0.18, 0.75) * tall, rng.uniform(0.15, 0.85))
    tilt = rng.uniform(-0.6, 0.6)
    down, right = depth - middle[0], across - middle[1]
    along = np.cos(tilt) * right + np.sin(tilt) * down
    athwart = -np.sin(tilt) * right + np.cos(tilt) * down
    size_of = rng.uniform(*radius)
    ratio = rng.uniform(1.0, stretch)
    angle = np.arctan2(athwart * ratio, along)
    outline = np.ones_like(angle)
    for harmonic in (2, 3, 4, 5):
        outline += rough * rng.normal() / harmonic * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    level = np.hypot(along / size_of, athwart * ratio / size_of) / np.maximum(outline, 0.4)
    return level, middle


def _nerve(rng: np.random.Generator, echo: Map, mask: MaskArray) -> None:
    """A bright bundle with dark fascicles, often in low contrast to its surroundings."""
    size = (echo.shape[0], echo.shape[1])
    level, _ = _blob(rng, size, (0.07, 0.15), stretch=2.6, rough=0.22)
    inside = level < 1
    around = float(echo[(level < 1.4) & ~inside].mean()) if inside.any() else 0.4
    honeycomb = np.clip(_smooth_noise(rng, size, 0.022), -1, 1)
    bright = around * rng.uniform(1.5, 3.0)
    echo[inside] = (bright * (1 + rng.uniform(0.35, 0.7) * honeycomb))[inside]
    rim = np.exp(-(((level - 1) / 0.07) ** 2))
    echo += around * rng.uniform(0.4, 1.6) * rim
    mask[inside] = 1


def _vessel(rng: np.random.Generator, echo: Map, loss: Map, mask: MaskArray) -> None:
    """A nearly echo-free lumen with a bright wall; the tissue behind it is enhanced."""
    level, _ = _blob(rng, (echo.shape[0], echo.shape[1]), (0.035, 0.09), stretch=1.7, rough=0.1)
    inside = level < 1
    wall = np.exp(-(((level - 1.08) / 0.09) ** 2))
    echo += rng.uniform(0.2, 1.2) * wall
    echo[inside] = rng.uniform(0.002, 0.05)
    loss[inside] = 0.1
    mask[inside] = 2


def _distractor(rng: np.random.Generator, echo: Map, mask: MaskArray) -> None:
    """A dark fat lobule or muscle belly: neither nerve nor vessel."""
    level, _ = _blob(rng, (echo.shape[0], echo.shape[1]), (0.05, 0.12), stretch=3.0, rough=0.35)
    inside = (level < 1) & (mask == 0)
    echo[inside] *= rng.uniform(0.25, 0.6)


def _bone(rng: np.random.Generator, echo: Map, loss: Map, mask: MaskArray) -> None:
    """A bright curved surface that shadows everything behind it."""
    depth, across = _grid((echo.shape[0], echo.shape[1]))
    top = rng.uniform(0.45, 0.8) * echo.shape[0] / echo.shape[1]
    middle, half = rng.uniform(0.0, 1.0), rng.uniform(0.06, 0.18)
    surface = top + rng.uniform(0.2, 1.5) * (across - middle) ** 2
    within = np.abs(across - middle) < half
    shell = np.exp(-(((depth - surface) / 0.01) ** 2)) * within
    free = mask == 0
    echo[free] += (rng.uniform(3, 9) * shell)[free]
    loss[within & (depth > surface + 0.01)] = rng.uniform(5, 20)
    # The beam is wider than a pixel: a shadow has soft sides.
    loss[:] = ndimage.gaussian_filter1d(loss, 0.012 * echo.shape[1], axis=1)


def _scan(rng: np.random.Generator, echo: Map, loss: Map) -> Map:
    """The echo envelope: scatterers seen through a point-spread function that changes with depth."""
    height, width = echo.shape
    # Gain compensates a uniform tissue's loss exactly; what remains is enhancement and shadow.
    decibels = rng.uniform(25, 45) / width
    through = 10 ** (-decibels * (np.cumsum(loss, axis=0) - np.arange(1, height + 1)[:, None]) / 20)
    through *= 10 ** (-rng.uniform(0, 12) * np.arange(height)[:, None] / height / 20)
    scatterers = rng.standard_normal((2, height, width)) * np.maximum(echo, 0) ** 0.9 * through

    pixel = width / 256
    axial = rng.uniform(0.55, 0.8) * pixel
    focus = rng.uniform(0.3, 0.7) * height
    bands = np.linspace(0, height - 1, 5)
    lateral = pixel * (1.0 + 2.2 * np.abs(bands - focus) / height)
    along_depth = ndimage.gaussian_filter1d(scatterers, axial, axis=1)
    # The same energy at every depth: a wider beam does not make a brighter image.
    blurred = [ndimage.gaussian_filter1d(along_depth, sigma, axis=2) * np.sqrt(sigma * axial) for sigma in lateral]
    position = np.interp(np.arange(height), bands, np.arange(len(bands)))
    below = np.minimum(position.astype(int), len(bands) - 2)
    share = (position - below)[:, None]
    rows = np.arange(height)
    stack = np.stack(blurred)
    mixed = (
        stack[below, :, rows].transpose(1, 0, 2) * (1 - share) + stack[below + 1, :, rows].transpose(1, 0, 2) * share
    )
    return np.hypot(mixed[0], mixed[1])


def _log_compressed(rng: np.random.Generator, envelope: Map) -> NDArray[np.uint8]:
    """8-bit brightness over a dynamic range of 45 to 60 dB, above the electronic noise floor."""
    reference = np.percentile(envelope, 99.9)
    noise = 10 ** (-rng.uniform(45, 60) / 20)
    envelope = envelope / reference + noise * np.abs(rng.standard_normal(envelope.shape))
    span = rng.uniform(45, 60)
    brightness = 1 + 20 * np.log10(np.maximum(envelope, 1e-9)) / span
    return np.asarray(np.clip(brightness, 0, 1) * 255, np.uint8)
