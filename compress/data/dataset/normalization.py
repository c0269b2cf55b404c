"""What is done to the values of an image before its network sees them.

Legend: C channels, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Literal, Self

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

FloatArray = NDArray[np.float32]
FLATTEST = 1e-6
"""The deviation that an image of one value gets, whose pixels become 0."""
BGR: Literal["BGR"] = "BGR"


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Normalization:
    """input = (pixel - mean) / std of pixels brought to 0..1, one mean and std for each channel."""

    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (1.0,)
    scale: str | None = field(default=None, compare=False)
    """How the file's values were brought to 0..1 before; None where that is not known."""
    z_score: Literal["image", "channel"] | None = None
    """Each image by its own mean and deviation instead: those of all its channels together, or each channel by its own.
    They are taken of what the network is given, padding included, and of an image in tiles of all of it."""
    order: Literal["RGB", "BGR"] = "RGB"
    """The order of the network's channels; `mean` and `std` are in this order too."""

    @pydantic.model_validator(mode="after")
    def _say_it_once(self) -> Self:
        if self.z_score is not None and (self.mean, self.std) != ((0.0,), (1.0,)):
            raise ValueError("z_score takes each image's own mean and std; leave these out")
        return self

    def __str__(self) -> str:
        mean, std = (", ".join(f"{number:.4g}" for number in numbers) for numbers in (self.mean, self.std))
        whose = {
            "image": "each image by its own mean and std",
            "channel": "each channel of an image by its own mean and std",
        }
        said = f"mean {mean}; std {std}" if self.z_score is None else whose[self.z_score]
        return said if self.order == "RGB" else f"{said}; channels in the order {self.order}"

    @property
    def told(self) -> dict[str, object]:
        """As a recipe writes it: what is not said there is left out."""
        said: dict[str, object] = {"mean": list(self.mean), "std": list(self.std)}
        if self.z_score is not None:
            said = {"z_score": self.z_score}
        return said if self.order == "RGB" else {**said, "order": self.order}

    def fault_for(self, channels: int, scale: str) -> str | None:
        """What is wrong with it for images of so many channels, scaled so; None if nothing."""
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, channels):
                return (
                    f"the normalization has {len(numbers)} numbers in {name}, but the network takes {channels} "
                    "channels: give one number for each channel, or one for all"
                )
        if self.order != "RGB" and channels != 3:
            return (
                f"the normalization has the order {self.order}, but the network takes {channels} channels: leave order "
                "out"
            )
        if self.scale not in (None, scale):
            return (
                f"the normalization is for values scaled otherwise ({self.scale}) than this data's ({scale}); read the "
                "data as in training, or give a normalization of its own"
            )
        return None

    def of(self, whole_CHW: FloatArray) -> Normalization:
        """With the numbers of this image where each image has its own."""
        if self.z_score is None:
            return self
        axes = tuple(range(int(self.z_score == "channel"), whole_CHW.ndim))
        ordered_CHW = self._ordered(whole_CHW)
        mean_C = np.atleast_1d(ordered_CHW.mean(axes, np.float64))
        std_C = np.maximum(np.atleast_1d(ordered_CHW.std(axes, np.float64)), FLATTEST)
        return replace(self, z_score=None, mean=tuple(mean_C.tolist()), std=tuple(std_C.tolist()))

    def __call__(self, pixels_CHW: FloatArray) -> FloatArray:
        """Normalize pixels already scaled to 0..1 (channels red, green, blue where there are three)."""
        if self.z_score is not None:
            return self.of(pixels_CHW)(pixels_CHW)
        mean, std = (
            np.asarray(numbers, np.float32).reshape(-1, *[1] * (pixels_CHW.ndim - 1))
            for numbers in (self.mean, self.std)
        )
        return (self._ordered(pixels_CHW) - mean) / std

    def _ordered(self, pixels_CHW: FloatArray) -> FloatArray:
        return pixels_CHW if self.order == "RGB" else np.ascontiguousarray(pixels_CHW[::-1])
