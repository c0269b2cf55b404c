"""A volume's file in NIfTI: its header first, its voxels when asked for. The one place that imports nibabel."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.cases import Spacing
from compress.data.dataset.tiles import Size, by
from compress.errors import DataError, MissingExtra

MOST_VOXELS = 2**30
MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
"""A NIfTI header's units of length, in mm."""


def headed(path: Path, axes: str | None) -> VolumeFile:
    """A file, of which the header has been read.

    Args:
        axes: what its axes are to run towards, such as "RAS"; None leaves them as they are, the slowest first.

    Raises:
        DataError: if it is no volume in NIfTI.
    """
    with _told(path):
        now = path.stat()
    return _headed(path, axes, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=4096)
def _headed(path: Path, axes: str | None, changed: int, size: int) -> VolumeFile:
    """A file with its header read: training asks for the same one several times in every view of every patch.

    Args:
        changed, size: when it was changed, in ns, and its bytes: another file of the same name is read anew.
    """
    return VolumeFile(path, axes)


class VolumeFile:
    """A NIfTI file whose header is known to be that of a volume; its values are read when they are asked for."""

    def __init__(self, path: Path, axes: str | None) -> None:
        self.path = path
        nibabel = nibabel_package()
        with _told(path):
            self.image: Any = nibabel.load(path)
        if not isinstance(self.image, nibabel.Nifti1Image):
            raise DataError(f"{path}: not a NIfTI file (.nii or .nii.gz)")
        shape = self.image.shape
        if len(shape) != 3:
            raise DataError(
                f"{path}: has {len(shape)} axes ({by(shape)}), but a volume has three; save each as its own"
            )
        if min(shape) < 1 or math.prod(shape) > MOST_VOXELS:
            raise DataError(f"{path}: {by(shape)} voxels are no volume that can be read")
        if self.image.get_data_dtype().kind not in "iuf":
            raise DataError(f"{path}: voxels of {self.image.get_data_dtype()} are no plain numbers; save one channel")
        self.affine: NDArray[np.float64] = self.image.affine
        ways = nibabel.orientations
        spacing = nibabel.affines.voxel_sizes(self.affine) * MM[self.image.header.get_xyzt_units()[0]]
        start = ways.io_orientation(self.affine) if np.isfinite(self.affine).all() and spacing.all() else None
        if start is None or np.isnan(start).any():
            raise DataError(f"{path}: its affine does not tell where every axis runs; correct the header")
        turned = ways.axcodes2ornt(axes) if axes is not None else start[::-1]
        self.turn = ways.ornt_transform(start, turned)
        order = np.argsort(self.turn[:, 0])
        self.size: Size = tuple(shape[axis] for axis in order)
        self.spacing: Spacing = tuple(float(spacing[axis]) for axis in order)

    def values(self, kind: Any = np.float32) -> NDArray[Any]:
        """The voxels, turned (DHW)."""
        with _told(self.path):
            values = self.image.get_fdata(dtype=kind, caching="unchanged")
        if not np.isfinite(values).all():
            raise DataError(f"{self.path}: holds voxels that are NaN or infinite")
        return np.ascontiguousarray(nibabel_package().orientations.apply_orientation(values, self.turn))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read is told of the file."""
    nibabel = nibabel_package()
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but the split lists it") from None
    except nibabel.filebasedimages.ImageFileError:
        raise DataError(f"{path}: not a NIfTI file (.nii or .nii.gz)") from None
    except (OSError, EOFError, ValueError, zlib.error, nibabel.spatialimages.HeaderDataError) as error:
        said = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: damaged or unreadable NIfTI file ({said})") from None


def nibabel_package() -> Any:
    try:
        import nibabel
    except ModuleNotFoundError:
        raise MissingExtra("nibabel", "nifti") from None
    return nibabel
