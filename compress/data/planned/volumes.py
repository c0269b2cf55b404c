"""Reads volumes as nnU-Net does: the files of all channels, in the plan's order of axes, prepared for its network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from compress.data.dataset.cases import Case, Fit, FloatArray, MaskArray, Spacing
from compress.data.dataset.masks import as_indices, whole_numbers
from compress.data.dataset.nifti_file import VolumeFile, headed
from compress.data.dataset.tiles import Size, by
from compress.data.planned.plan import Plan
from compress.data.planned.preparation import Framed, prepared
from compress.errors import DataError

FIRST = "_0000"
"""What stands behind the name of a case in the name of its first channel's file."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A reader; "image" below is what the network sees."""

    plan: Plan
    unit: ClassVar[str] = "mm"
    resize: ClassVar[str] = "as nnU-Net's plans say: splines, slices apart where voxels are long (docs/nnunet.md)"

    @property
    def axes(self) -> str:
        """Of what the network takes; volumes are in their files' order, whatever that is."""
        return "DHW"[-self.plan.dims :]

    @property
    def scale(self) -> str:
        return f"nnU-Net: {self.plan.scale}"

    def channel_order(self, channels: int) -> str:
        return f"{channels} as dataset.json lists them"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Those of all channels, given that of the first."""
        stem = path.name.removesuffix(self.plan.ending)
        if self.plan.channels == 1 or not stem.endswith(FIRST):
            return (path,)
        case = stem.removesuffix(FIRST)
        return tuple(path.with_name(f"{case}_{index:04d}{self.plan.ending}") for index in range(self.plan.channels))

    def size(self, path: Path) -> Size:
        """The three sides of the original, in the plan's order."""
        return self._in_order(self._opened(path).size)

    def spacing(self, path: Path) -> Spacing:
        """The sides of the original's voxels, in the plan's order."""
        return self._in_order(self._opened(path).spacing)

    def image(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        """What the network sees of it, whole (Cdhw)."""
        return self._prepared(path)[0]

    def frame(self, path: Path) -> Framed:
        return self._prepared(path)[1]

    def mask(self, path: Path) -> MaskArray:
        """Class indices of the original (DHW)."""
        return self._indices(self._opened(path))

    def checked(self, case: Case) -> tuple[MaskArray, bool]:
        mask = self._opened(case.mask)
        for path in self.files(case.image):
            if not path.is_file():
                raise DataError(f"{path}: no such file, but dataset.json has {self.plan.channels} channels")
            image = self._opened(path)
            if image.size != mask.size:
                raise DataError(
                    f"{case.mask}: the mask is {by(mask.size)} voxels, its image {path.name} is {by(image.size)}: they "
                    "must be equal"
                )
            if not np.allclose(image.affine, mask.affine, rtol=0, atol=1e-3):
                raise DataError(
                    f"{case.mask}: its affine puts voxels elsewhere than that of its image {path.name}; resample it to "
                    "the image's grid"
                )
        pixels_Cdhw, _ = self._prepared(case.image)
        return self._indices(mask), bool(np.ptp(pixels_Cdhw) == 0)

    def _indices(self, file: VolumeFile) -> MaskArray:
        stored_DHW = whole_numbers(file.values(np.float64), file.path, "voxel")
        return as_indices(stored_DHW, file.path).transpose(self.plan.transposed)

    def _opened(self, path: Path) -> VolumeFile:
        # nnU-Net's arrays have the file's slowest axis first; turned to RAS that is from the feet to the head.
        return headed(path, "SAR" if self.plan.reoriented else None)

    def _prepared(self, path: Path) -> tuple[FloatArray, Framed]:
        files = self.files(path)
        stats = (file.stat() for file in files if file.is_file())
        return _prepared(self, files, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))

    def _in_order(self, sides: tuple) -> tuple:
        return tuple(sides[axis] for axis in self.plan.transposed)


@lru_cache(maxsize=2)
def _prepared(
    reader: Planned, files: tuple[Path, ...], changed: tuple[tuple[int, int], ...]
) -> tuple[FloatArray, Framed]:
    """The last two volumes are kept: tiles of one are asked for one after the other, and its frame behind them."""
    voxels = [reader._opened(path).values().transpose(reader.plan.transposed) for path in files]
    shapes = {each.shape for each in voxels}
    if len(shapes) > 1:
        raise DataError(f"{files[0]}: its channels are of several sizes ({', '.join(map(by, sorted(shapes)))})")
    found = prepared(reader.plan, np.stack(voxels), reader.spacing(files[0]), str(files[0]))
    found[0].flags.writeable = False
    return found
