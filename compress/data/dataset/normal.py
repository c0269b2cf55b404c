"""Whether a normalization can be the one that a network was trained with, seen from a few images.

Shape legend: C channels, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.data.dataset.cases import Case, Dataset, FloatArray
from compress.data.dataset.normalization import BGR

FARTHEST = 10.0
"""Whatever a network is trained on, its inputs' mean is nearer to 0 than this."""
NARROWEST, WIDEST = 0.05, 20.0
"""Whatever a network is trained on, its inputs' deviation lies between these."""
RAW_STD = 0.01
"""Networks trained on 0..255 as it is have a std of 1/255 here; some divide by more."""
BLANK = 0.002
"""The deviation of images, of 0..1, in which nothing can be seen."""
RANGES = (255, 4095, 65535)
"""What images of 8, 12 and 16 bits end at."""


def judged(data: Dataset, pixels: Sequence[FloatArray], whose: str) -> tuple[list[str], list[str]]:
    """What cannot be, and what is only unusual, of the data's normalization on these pixels (each CHW, 0..1).

    Args:
        whose: where the normalization is from, in words.
    """
    given = data.normalization
    every = np.concatenate([image_CHW.reshape(len(image_CHW), -1) for image_CHW in pixels], axis=1)
    mean_C, std_C = every.mean(axis=1, dtype=float), every.std(axis=1, dtype=float)
    where = f"data: normalization (that of {whose})"
    if std_C.max() < BLANK:
        return [f"{data.source}: the {len(pixels)} images looked at are blank: {_stats(mean_C, std_C)} of 0..1"], []
    if given.z_score is not None:
        return [], []
    if max(given.mean) > 1 or max(given.std) > 1:
        return [f"{where}: {_of_another_range(data)}"], []
    if given.order == BGR:
        mean_C, std_C = mean_C[::-1], std_C[::-1]
    centre_C = (mean_C - np.asarray(given.mean)) / np.asarray(given.std)
    spread_C = std_C / np.asarray(given.std)
    if np.abs(centre_C).max() <= FARTHEST and spread_C.max() >= NARROWEST and spread_C.max() <= WIDEST:
        return [], []
    told = (
        f"{where}: with mean {_row(given.mean)} and std {_row(given.std)} the network's input has "
        f"{_stats(centre_C, spread_C)}"
    )
    if max(given.std) <= RAW_STD:
        return [], [f"{told}: right only for a network that was trained on values of 0..255, not scaled"]
    return [
        f"{told}, which no training sees; pixels are brought to 0..1 first ({data.reader.scale}), and those looked at "
        f"have {_stats(mean_C, std_C)}"
    ], []


def _of_another_range(data: Dataset) -> str:
    """The sentence on a mean or deviation that values of 0..1 cannot have."""
    given = data.normalization
    top = max(*given.mean, *given.std)
    said = f"mean {_row(given.mean)}, std {_row(given.std)}"
    end = next((end for end in RANGES if top <= end), None)
    if end is None:
        return f"{said} are not of values of 0..1, to which pixels are brought first ({data.reader.scale})"
    mean, std = (
        tuple(value / end for value in values) if max(values) > 1 else values for values in (given.mean, given.std)
    )
    return (
        f"{said} are of values of 0..{end}, but pixels are brought to 0..1 first ({data.reader.scale}); divided by "
        f"{end}: mean: {_row(mean)}, std: {_row(std)}"
    )


def untold(whose: str) -> list[str]:
    """Whether nobody says what the network was trained with."""
    if whose.startswith("the train cases"):
        return [
            "data: neither the recipe nor the weights give a normalization: the train cases' own is used; if the "
            "network was trained with another, set data normalization: a wrong one costs more than any compression"
        ]
    return []


def colours(data: Dataset, case: Case, pixels: Sequence[FloatArray]) -> list[str]:
    """Whether gray images meet a network of colours, or the other way round."""
    if data.channels == 3 and all(np.ptp(image_CHW, axis=0).max() == 0 for image_CHW in pixels):
        return ["data: the images are gray, and the network takes 3 channels: each gets the same gray"]
    if data.channels == 1 and len(data.fit.size) == 2:
        colour_CHW = data.reader.image(case.image, 3, data.fit)
        if np.ptp(colour_CHW, axis=0).mean() > 0.02:
            return ["data: the images are in colour, and the network takes 1 channel: it gets their luma (ITU-R 601)"]
    return []


def _stats(mean_C: np.ndarray, std_C: np.ndarray) -> str:
    return f"mean {_row(mean_C)} and deviation {_row(std_C)}"


def _row(values: Sequence[float] | np.ndarray) -> str:
    return f"[{', '.join(f'{float(value):.4g}' for value in values)}]"
