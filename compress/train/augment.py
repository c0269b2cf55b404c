"""Random changes of a training image and its mask (MONAI), reproducible case by case."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from monai.transforms import Compose, Transform

Preset = Literal["none", "flips", "strong"]
Chance = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Augment:
    """A preset and what is to be different from it; an option that is not given is the preset's.

    "strong" is flips, rotation, scale, shear and shift, elastic deformation (U-Net, section 3.1),
    contrast, brightness, blur and noise. No preset swaps up and down: depth and gravity have a
    direction in ultrasound and endoscopy alike. In volumes left and right are the patient's, and up is
    the head.
    """

    preset: Preset = "strong"
    flips: Chance | None = None
    """Probability of swapping left and right; 0.5 in flips and strong."""
    upside_down: Chance | None = None
    """Probability of swapping up and down; 0 in every preset."""
    scale: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Largest change of size, as a share of it; 0.25 in strong, 0 in the others."""
    elastic: Chance | None = None
    """Probability of an elastic deformation; 0.25 in strong, 0 in the others."""
    intensity: Annotated[float, Field(ge=0, le=2)] | None = None
    """How strong contrast, brightness, blur and noise are; 1 in strong, 0 in the others."""


def in_full(given: Any) -> Any:
    """The short way of writing it: a preset alone."""
    if isinstance(given, str):
        return {"preset": given}
    if isinstance(given, Mapping | Augment):
        return given
    raise ValueError("it is a preset, such as strong, or names of options with values")


PresetOrMore = Annotated[Augment, BeforeValidator(in_full, json_schema_input_type=Preset | Augment)]
"""`strong`, or `{preset: strong, elastic: 0.5}`."""


@plain_dataclass(frozen=True, kw_only=True)
class Changes:
    """What becomes of a training image of some kind."""

    augment: Augment
    crop: tuple[int, ...] | None = None
    """First a random part of this size is taken."""
    axes: str = "HW"
    """What its axes run along, as a data set's reader says it."""


def augmentation(how: Preset | Augment | Changes) -> Compose:
    """A MONAI transform of {"image": CHW float in 0..1, "mask": 1HW}; for volumes DHW stands for HW."""
    from monai.transforms import Compose, RandSpatialCropd

    if isinstance(how, str):
        how = Augment(preset=how)
    if isinstance(how, Augment):
        how = Changes(augment=how)
    crop = [] if how.crop is None else [RandSpatialCropd(keys=["image", "mask"], roi_size=how.crop, random_size=False)]
    return Compose([*crop, *_changes(how.augment, how.axes)])


def _changes(how: Augment, axes: str) -> list[Transform]:
    """In an order that never changes: each draws from a generator seeded by its place."""
    from monai.transforms import Rand2DElasticd, Rand3DElasticd, RandAffined, RandFlipd

    strong = how.preset == "strong"
    both: dict[str, Any] = {"keys": ["image", "mask"]}
    space: dict[str, Any] = {**both, "mode": ["bilinear", "nearest"], "padding_mode": "zeros"}
    flips = _or(how.flips, 0.0 if how.preset == "none" else 0.5)
    upside_down = _or(how.upside_down, 0.0)
    scale = _or(how.scale, 0.25 if strong else 0.0)
    elastic = _or(how.elastic, 0.25 if strong else 0.0)
    changes: list[Transform] = []
    if flips:
        changes.append(RandFlipd(**both, prob=flips, spatial_axis=_along(axes, "WRL")))
    if upside_down:
        changes.append(RandFlipd(**both, prob=upside_down, spatial_axis=_along(axes, "HSI")))
    volume = len(axes) == 3
    # A number alone is for the first axis, or the only angle; volumes are smaller, and have three of each.
    scales: Any = (scale,) * 3 if volume else scale
    if strong:
        moved: dict[str, Any] = {"rotate_range": 0.35, "shear_range": 0.1, "translate_range": 25}
        if volume:
            moved = {"rotate_range": (0.35,) * 3, "shear_range": (0.1,) * 6, "translate_range": (5,) * 3}
        changes.append(RandAffined(**space, prob=0.8, scale_range=scales, **moved))
    elif scale:
        changes.append(RandAffined(**space, prob=0.8, scale_range=scales))
    if elastic and volume:
        changes.append(Rand3DElasticd(**space, prob=elastic, sigma_range=(5, 7), magnitude_range=(50, 150)))
    elif elastic:
        changes.append(Rand2DElasticd(**space, prob=elastic, spacing=(32, 32), magnitude_range=(1, 3)))
    return [*changes, *_intensities(_or(how.intensity, 1.0 if strong else 0.0))]


def _along(axes: str, letters: str) -> int:
    """The axis that runs along one of these directions."""
    return next(index for index, letter in enumerate(axes) if letter in letters)


def _intensities(strength: float) -> list[Transform]:
    """Contrast, brightness, blur and noise, in proportion to the strength."""
    if strength == 0:
        return []
    from monai.transforms import (
        RandAdjustContrastd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    image: dict[str, Any] = {"keys": ["image"]}
    sigma = (0.4 * strength, 1.2 * strength)
    return [
        RandAdjustContrastd(**image, prob=0.5, gamma=(1 - 0.4 * strength, 1 + 0.6 * strength)),
        RandScaleIntensityd(**image, prob=0.4, factors=0.25 * strength),
        RandShiftIntensityd(**image, prob=0.4, offsets=0.1 * strength),
        RandGaussianSmoothd(**image, prob=0.2, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
        RandGaussianNoised(**image, prob=0.3, std=0.04 * strength),
    ]


def _or(given: float | None, preset: float) -> float:
    return preset if given is None else given


def augmented(
    transform: Compose, image_CHW: np.ndarray, mask_HW: np.ndarray, seed: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One augmented pair (CHW float32, HW int64); the same seed gives the same pair."""
    if transform.transforms:
        state = np.random.SeedSequence(seed).generate_state(1)[0]
        transform.set_random_state(int(state))
    with _without_history:
        changed = transform({"image": torch.from_numpy(image_CHW), "mask": torch.from_numpy(mask_HW[None].copy())})
    image, mask = (torch.as_tensor(changed[key]) for key in ("image", "mask"))
    return image.to(torch.float32), mask[0].to(torch.int64)


class _WithoutHistory:
    """While any thread is inside, MONAI keeps no record of what it did to a tensor, which is half of its time."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, True

    def __enter__(self) -> None:
        from monai.data import get_track_meta, set_track_meta

        with self._lock:
            if not self._inside:
                self._before = get_track_meta()
                set_track_meta(False)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        from monai.data import set_track_meta

        with self._lock:
            self._inside -= 1
            if not self._inside:
                set_track_meta(self._before)


_without_history = _WithoutHistory()
