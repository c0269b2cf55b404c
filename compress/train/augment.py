"""Random changes of a training image and its mask (MONAI), reproducible case by case."""

from typing import Any, Literal

import numpy as np
import torch
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Transform,
)


def augmentation(strength: Literal["none", "flips", "strong"]) -> Transform:
    """A MONAI transform of {"image": CHW float in 0..1, "mask": 1HW}.

    "strong" is flips, rotation, scale, shear and shift, elastic deformation (U-Net, section 3.1),
    contrast, brightness, blur and noise. Up and down are never swapped: depth and gravity have a
    direction in ultrasound and endoscopy alike.
    """
    both: dict[str, Any] = {"keys": ["image", "mask"]}
    flips: list[Transform] = [RandFlipd(**both, prob=0.5, spatial_axis=1)]
    if strength == "none":
        return Compose([])
    if strength == "flips":
        return Compose(flips)
    space: dict[str, Any] = {**both, "mode": ["bilinear", "nearest"], "padding_mode": "zeros"}
    image: dict[str, Any] = {"keys": ["image"]}
    return Compose(
        [
            *flips,
            RandAffined(
                **space,
                prob=0.8,
                rotate_range=0.35,
                scale_range=0.25,
                shear_range=0.1,
                translate_range=25,
            ),
            Rand2DElasticd(**space, prob=0.25, spacing=(32, 32), magnitude_range=(1, 3)),
            RandAdjustContrastd(**image, prob=0.5, gamma=(0.6, 1.6)),
            RandScaleIntensityd(**image, prob=0.4, factors=0.25),
            RandShiftIntensityd(**image, prob=0.4, offsets=0.1),
            RandGaussianSmoothd(**image, prob=0.2, sigma_x=(0.4, 1.2), sigma_y=(0.4, 1.2)),
            RandGaussianNoised(**image, prob=0.3, std=0.04),
        ]
    )


def augmented(
    transform: Transform, image_CHW: np.ndarray, mask_HW: np.ndarray, seed: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One augmented pair (CHW float32, HW int64); the same seed gives the same pair."""
    if isinstance(transform, Compose) and transform.transforms:
        state = np.random.SeedSequence(seed).generate_state(1)[0]
        transform.set_random_state(int(state))
    changed = transform({"image": torch.from_numpy(image_CHW), "mask": torch.from_numpy(mask_HW[None].copy())})
    image, mask = (torch.as_tensor(changed[key]) for key in ("image", "mask"))
    return image.to(torch.float32), mask[0].to(torch.int64)
