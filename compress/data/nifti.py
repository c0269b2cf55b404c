"""A folder of volumes: images/ and masks/ in NIfTI (.nii, .nii.gz) with a split.csv, as data/folder.py has of images.

Shape legend: C channels, D, H, W the three axes of a volume in the order of `axes`.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from compress.data.dataset.cases import Case, Dataset, Fit, FloatArray, How, MaskArray, Normalization, Spacing
from compress.data.dataset.masks import MaskValues, as_indices, parsed_masks, whole_numbers
from compress.data.dataset.nifti_file import VolumeFile, headed, nibabel_package
from compress.data.dataset.on_disk import dataset_of, only_of_tiles
from compress.data.dataset.restore import Way
from compress.data.dataset.tiles import Size, by
from compress.errors import DataError

Side = Annotated[int, Field(ge=4)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Intensity = Literal["percentiles", "z_score", "window"]

PERCENTILES = (0.5, 99.5)
DEVIATIONS = 5
"""Where a z-score ends: farther from the mean there are artefacts, and what is to be 0..1 has ends."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Nifti:
    """Volumes and class-index masks on disk, and how they are fitted to the network.

    split.csv and calibration are as in `folder`. Scores are taken on the original voxels, distances in mm
    by the spacing in each file's header.
    """

    dims: ClassVar[int] = 3
    root: Path
    table: Path | None = None
    """Where split.csv lies if not in `root`; its paths are relative to `root` all the same."""
    classes: tuple[str, ...] | None = None
    """The name of every mask index, background first; None names them "class 1", "class 2", ..."""
    size: tuple[Side, Side, Side] = (96, 96, 96)
    """Depth, height and width of the network's input: a patch, where volumes are taken in tiles."""
    fit: How = "tile"
    """tile keeps the resolution and takes volumes in patches of the size; resize squashes them to the size; pad keeps
    the ratio of their sides in voxels."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] | None = None
    """The share of a patch's length that its neighbour covers too (fit: tile); None is a quarter."""
    spacing: tuple[Length, Length, Length] | None = None
    """Voxels are resampled to this many mm first (fit: tile); None leaves them as they are."""
    restore: Way = "probabilities"
    """How answers get back to the size of the image: by their probabilities, interpolated linearly, or by their labels,
    each pixel that of the nearest."""
    axes: str = "RAS"
    """What D, H and W run towards: R or L (right, left), A or P (front, back), S or I (head, feet), each pair once.
    Volumes are turned and flipped so, by their header, whatever their own order is."""
    intensity: Intensity = "percentiles"
    """How voxels are brought to 0..1: between each volume's own 0.5th and 99.5th percentiles; by each volume's own
    mean and deviation, -5..5 of which become 0..1; or between the two ends of `window`."""
    window: tuple[float, float] | None = None
    """The two ends in the file's own unit, such as [-160, 240] in Hounsfield units (intensity: window)."""
    ignore: Annotated[int, Field(ge=1, le=255)] | None = None
    """Mask index whose voxels count neither in training nor in any score."""
    masks: dict[str | int, str | int] | None = None
    """Where the masks hold something else than class indices: the class of each stored value, by name or by index, such
    as {1: necrosis, 2: oedema, 4: enhancing}; `ignore` is the class of what counts nowhere."""
    normalization: Normalization | None = None
    """None takes the one stored with the weights, else the one measured on the train cases."""
    calibration: Annotated[int, Field(ge=0)] = 32
    """How many train cases to set aside for calibration."""
    tolerance: Annotated[float, Field(gt=0)] = 2.0
    """Surface distance that still counts as agreement, in mm."""

    batch: Annotated[int, Field(ge=1)] = 2
    """Cases in one step of training."""

    @field_validator("axes")
    @classmethod
    def _three_directions(cls, axes: str) -> str:
        if len(axes) != 3 or not all(set(axes) & set(pair) for pair in ("RL", "AP", "SI")):
            raise ValueError("one letter of each pair R/L, A/P and S/I, such as RAS or SPL")
        return axes

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        only_of_tiles(self.fit, overlap=self.overlap, spacing=self.spacing)
        if (self.intensity == "window") != (self.window is not None):
            raise ValueError("window and intensity: window belong together; give both or neither")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"the window {self.window[0]:g}..{self.window[1]:g} is empty; give its lower end first")
        if self.masks is not None and parsed_masks(self.masks)[1]:
            raise ValueError("masks names colours, but a volume holds values; name these")
        return self

    def __call__(self, *, channels: int, classes: int) -> Dataset:
        """The data set for a network with this many input channels and classes.

        Raises:
            DataError: if a file is missing, the split is empty or lists a file twice, the number of class
                names does not match the network, or the network takes more than one channel.
            MissingExtra: without nibabel.
        """
        nibabel_package()
        if channels != 1:
            raise DataError(
                f"{self.root}: the network takes {channels} channels, but a NIfTI volume has one; set in_channels: 1"
            )
        fit = Fit(size=self.size, how=self.fit, spacing=self.spacing, restored_from=self.restore)
        return dataset_of(
            self,
            fit,
            channels=channels,
            classes=classes,
            reader_of=lambda masks: Volumes(axes=self.axes, intensity=self.intensity, window=self.window, masks=masks),
        )


@plain_dataclass(frozen=True, kw_only=True)
class Volumes:
    """Reads NIfTI volumes, their axes in one order and direction."""

    unit: ClassVar[str] = "mm"
    resize: ClassVar[str] = "trilinear, antialiased when made smaller, after scaling to 0..1"
    axes: str
    intensity: Intensity
    window: tuple[float, float] | None = None
    masks: MaskValues | None = None
    """Which class each stored value of a mask is; None where they are class indices."""

    @property
    def scale(self) -> str:
        """Each volume's voxels to 0..1, before it is resampled or cut."""
        if self.intensity == "percentiles":
            low, high = PERCENTILES
            return f"voxels clipped to the volume's percentiles {low:g} and {high:g}, these to 0 and 1"
        if self.intensity == "z_score":
            return (
                f"(voxel - mean of the volume) / its standard deviation, clipped to -{DEVIATIONS}..{DEVIATIONS}, these "
                "to 0 and 1"
            )
        assert self.window is not None
        return f"voxels clipped to {self.window[0]:g}..{self.window[1]:g}, these to 0 and 1"

    def channel_order(self, channels: int) -> str:
        return "one volume"

    def size(self, path: Path) -> Size:
        """The three sides in the order of `axes`, from the header alone."""
        return self._opened(path).size

    def spacing(self, path: Path) -> Spacing:
        """The voxel's sides in mm in the order of `axes`, from the header alone."""
        return self._opened(path).spacing

    def image(self, path: Path, channels: int, fit: Fit) -> FloatArray:
        """The volume (CDHW, 0..1), fitted by linear interpolation, antialiased."""
        assert channels == 1
        file = self._opened(path)
        pixels_DHW = self._scaled(file.values(), path)
        return fit.padded(_resized(pixels_DHW, fit.inner(file.size, file.spacing))[None])

    def mask(self, path: Path) -> MaskArray:
        """The class indices (DHW)."""
        return self._indices(self._opened(path))

    def checked(self, case: Case) -> tuple[MaskArray, bool]:
        image, mask = self._opened(case.image), self._opened(case.mask)
        if image.size != mask.size:
            raise DataError(
                f"{case.mask}: the mask is {by(mask.size)} voxels along {self.axes}, its image {case.image.name} is "
                f"{by(image.size)}: they must be equal"
            )
        if not np.allclose(image.affine, mask.affine, rtol=0, atol=1e-3):
            raise DataError(
                f"{case.mask}: its affine puts voxels elsewhere than that of its image {case.image.name}; resample it "
                "to the image's grid"
            )
        pixels_DHW = self._scaled(image.values(), case.image)
        return self._indices(mask), bool((pixels_DHW == pixels_DHW[0, 0, 0]).all())

    def _indices(self, file: VolumeFile) -> MaskArray:
        stored_DHW = whole_numbers(file.values(np.float64), file.path, "voxel")
        return as_indices(stored_DHW, file.path) if self.masks is None else self.masks.indices(stored_DHW, file.path)

    def _scaled(self, voxels_DHW: FloatArray, path: Path) -> FloatArray:
        if self.window is not None:
            low, high = self.window
        elif self.intensity == "percentiles":
            low, high = np.percentile(voxels_DHW, PERCENTILES)
        else:
            mean, deviation = voxels_DHW.mean(dtype=float), voxels_DHW.std(dtype=float)
            low, high = mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation
        if not low < high:
            raise DataError(
                f"{path}: nearly all of its voxels are {low:g}, so they cannot be brought to 0..1 by {self.intensity}; "
                "leave it out, or set another intensity"
            )
        return np.clip((voxels_DHW - np.float32(low)) / np.float32(high - low), 0, 1)

    def _opened(self, path: Path) -> VolumeFile:
        return headed(path, self.axes)


def _resized(pixels_DHW: FloatArray, size: Size) -> FloatArray:
    """A volume of another size: linear along each axis, antialiased as images are."""
    if pixels_DHW.shape == size:
        return pixels_DHW
    depth, *plane = size
    how: dict[str, Any] = {"mode": "bilinear", "antialias": True, "align_corners": False}
    slices_1DHW = F.interpolate(torch.from_numpy(pixels_DHW)[None], tuple(plane), **how)
    # torch antialiases planes only: the depth is the height of a plane whose rows are whole slices.
    flat_11DS = slices_1DHW.flatten(2)[None]
    return F.interpolate(flat_11DS, (depth, flat_11DS.shape[-1]), **how).reshape(size).numpy()
