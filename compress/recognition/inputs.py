"""How a trained network wants its images: normalizations and sizes tried on a few cases, by the Dice that each gives.

Which class a stored value of the masks is comes out of the same answers.

Legend: C channels, K classes, V stored values.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.data.dataset.cases import Fit, FloatArray, Normalization
from compress.data.dataset.images import Images
from compress.data.dataset.masks import IGNORED
from compress.data.dataset.normalization import BGR
from compress.data.dataset.restore import labels_at
from compress.errors import DataError
from compress.recognition.masks import Stored

CASES = 8
SECONDS = 25.0
"""Of inference, all together; fewer cases are taken where a network is slow."""
SURE = 0.02
"""Of Dice, by which the best must be better than the next to be sure."""
FINDS = 0.1
"""A Dice under which a network finds nothing."""
SIDES = (128, 160, 192, 224, 256, 320, 352, 384, 448, 512)
"""Usual sides of inputs."""
IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
UNIT = Normalization()
SIGNED = Normalization(mean=(0.5,), std=(0.5,))
BYTES = Normalization(mean=(0.0,), std=(1 / 255,))
ALIKE = 0.01
"""Of Dice, by which an image's own numbers, or BGR, must be better than what is usual to be taken."""
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way in which images may have been prepared."""

    title: str
    normalization: Normalization
    usual: bool = True
    """Whether it is the same for all images, in the order RGB."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A way, and what the network answered."""

    way: Way
    dice: float
    """Mean over the classes besides the background."""
    order: tuple[int, ...]
    """The class of each stored value with which that is so."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A network, and the cases that it is tried on."""

    net: nn.Module
    channels: int
    classes: int
    images: Sequence[Path]
    masks: Sequence[Path]
    found: Stored
    order: tuple[int, ...] | None = None
    """The class of each stored value, where it is known."""
    reader: Images = field(default_factory=Images)

    def tried(self, way: Way, size: Size) -> Tried:
        """The Dice of one way at one size, with the order of classes that gives most."""
        counts_KV = sum((self._counts(way, size, place) for place in range(len(self.images))), start=np.zeros(()))
        best, order = max((_dice(counts_KV, order), order) for order in self._orders())
        return Tried(way=way, dice=best, order=order)

    def measured(self, size: Size) -> Normalization:
        """Mean and deviation of the channels of these images."""
        every = [self._image(place, size).reshape(self.channels, -1) for place in range(len(self.images))]
        flat = np.concatenate(every, axis=1)
        mean, std = flat.mean(1, dtype=float), np.maximum(flat.std(1, dtype=float), 1e-4)
        return Normalization(mean=tuple(mean.round(4).tolist()), std=tuple(std.round(4).tolist()))

    def within(self, seconds: float, size: Size, times: int) -> Judge:
        """The same with as many cases as can be tried so often in this time; two at least."""
        way = Way(title="", normalization=UNIT)
        # The first time a network takes longer.
        self._counts(way, size, 0)
        begun = time.perf_counter()
        self._counts(way, size, 0)
        most = max(2, min(len(self.images), int(seconds / times / max(1e-3, time.perf_counter() - begun))))
        return Judge(**{**vars(self), "images": self.images[:most], "masks": self.masks[:most]})

    def inputs(self, size: Size, most: int = 2) -> list[FloatArray]:
        """Some images as a network gets them (1CHW), under the normalization that they have themselves."""
        measured = self.measured(size)
        return [measured(self._image(place, size))[None] for place in range(min(most, len(self.images)))]

    def _image(self, place: int, size: Size) -> FloatArray:
        return self.reader.image(self.images[place], self.channels, Fit(size=size))

    def _counts(self, way: Way, size: Size, place: int) -> NDArray[np.float64]:
        """How many pixels have each class in the answer and each stored value in the mask (KV)."""
        stored_HW = self.found.read(self.masks[place])
        image_CHW = way.normalization(self._image(place, size)).astype(np.float32)
        with torch.no_grad():
            logits_KHW = self.net(torch.from_numpy(image_CHW)[None])[0].float().numpy()
        if not np.isfinite(logits_KHW).all():
            logits_KHW = np.zeros_like(logits_KHW)
        labels_HW = labels_at(logits_KHW, stored_HW.shape)
        values = self.found.values
        at_HW = np.searchsorted(np.asarray(values), stored_HW)
        pairs = labels_HW.astype(np.int64) * len(values) + np.minimum(at_HW, len(values) - 1)
        classes = max(2, self.classes)
        return np.bincount(pairs.ravel(), minlength=classes * len(values)).reshape(classes, -1).astype(np.float64)

    def _orders(self) -> list[tuple[int, ...]]:
        """Every class that each value may be: 0 (black) stays the background; many values stay in order."""
        values, classes = self.found.values, max(2, self.classes)
        if self.order is not None:
            return [self.order]
        kept = int(values[0] == 0)
        free = len(values) - kept
        plain = tuple(range(len(values)))
        if len(values) > classes:
            raise DataError(
                f"{self.masks[0].parent}: the masks hold {len(values)} values ({self.found}), and the network tells "
                f"{classes} classes apart; say which class each is with --masks, such as --masks "
                f"'{self.found.told(values[0])}: 0, {self.found.told(values[-1])}: 1'"
            )
        if free > 4:
            return [plain]
        # The first of equal ones is the last here, since the greatest order wins a tie.
        return [(*range(kept), *order) for order in itertools.permutations(range(kept, classes), free)]


def _dice(counts_KV: NDArray[np.float64], order: Sequence[int]) -> float:
    """Mean Dice over the classes besides the background, values that are ignored left out."""
    counted = [place for place, index in enumerate(order) if index != IGNORED]
    scores = []
    for place in counted:
        index = order[place]
        if index == 0 or index >= len(counts_KV):
            continue
        among_V = counts_KV[:, counted]
        both = counts_KV[index, place]
        whole = among_V[index].sum() + counts_KV[:, place].sum()
        scores.append(2 * both / whole if whole else 0.0)
    return float(np.mean(scores)) if scores else 0.0


def ways(channels: int, measured: Normalization) -> list[Way]:
    """The ways that are in use, the usual ones first."""
    known = [("0..1", UNIT), ("-1..1", SIGNED), ("0..255 as they are", BYTES)]
    if channels == 3:
        known.insert(0, ("ImageNet's mean and std", IMAGENET))
    known.insert(1, ("mean and std of these images", measured))
    found = [Way(title=title, normalization=each) for title, each in known]
    own = Way(title="each image by its own mean and std", normalization=Normalization(z_score="image"), usual=False)
    found.append(own)
    if channels > 1:
        title = "each channel of an image by its own mean and std"
        found.append(Way(title=title, normalization=Normalization(z_score="channel"), usual=False))
    if channels == 3:
        for title, each in known[:1] + known[2:3]:
            turned = replace(each, order=BGR)
            found.append(Way(title=f"{title}, in the order BGR", normalization=turned, usual=False))
    return found


def tried_ways(judge: Judge, size: Size) -> list[Tried]:
    """Every way at one size, the best first; but a usual one before others that are no better than it by `ALIKE`."""
    found = [judge.tried(way, size) for way in ways(judge.channels, judge.measured(size))]
    found.sort(key=lambda each: -each.dice)
    usual = next(each for each in found if each.way.usual)
    first = usual if found[0].dice - usual.dice < ALIKE else found[0]
    return [first, *(each for each in found if each is not first)]


def tried_sizes(judge: Judge, way: Way, sizes: Sequence[Size]) -> list[tuple[float, Size]]:
    """The Dice at each size, the best first; of equal ones the smaller."""
    found = [(judge.tried(way, size).dice, size) for size in sizes]
    return sorted(found, key=lambda each: (-each[0], each[1]))
