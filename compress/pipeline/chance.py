"""Whether a baseline answers for its own images: better than chance, and the right way round.

Answers of the right size in the middle of the image have some Dice with any mask. So each answer is compared with the
masks of other cases too, and with its own mask mirrored and turned.

Legend: N cases, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from compress.data.dataset.cases import MaskArray
from compress.errors import NotHere
from compress.measure.segmentation import DICE, score_case, surely_above_zero

if TYPE_CHECKING:
    from compress.data.dataset.cases import Case
    from compress.task import Task

FEWEST, MOST = 8, 48
"""Cases with foreground that are looked at: until the baseline is surely better than chance, and no more than these."""
ALIKE = 0.8
"""Masks of two cases whose Dice is above this tell nothing of each other's images."""
CLEARLY = 0.1
"""Dice that mirrored masks must have more, to be told of."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What the answers of a baseline fit."""

    cases: int
    dice: float
    """The mean Dice with their own masks."""
    others: float
    """The mean Dice with the masks of other cases; NaN where these are all alike."""
    better: bool
    """Whether their own masks fit better, by a one-sided 95 % limit of the paired difference; True where none tell."""
    turned: str | None = None
    """The way that the masks must be turned so that they fit far better; None if they lie rightly."""
    turned_dice: float = math.nan

    @property
    def fault(self) -> str | None:
        """What is wrong, in one sentence without its end; None if nothing is seen to be."""
        if self.turned is not None:
            return (
                f"the baseline's answers fit masks {self.turned} far better (Dice {self.turned_dice:.3f} on "
                f"{self.cases} test cases) than masks as they are ({self.dice:.3f}): turn the images or the masks"
            )
        if not self.better:
            return (
                f"the baseline's answers fit other cases' masks (Dice {self.others:.3f}) as well as their own "
                f"({self.dice:.3f}, {self.cases} test cases), so no drop from it says anything: the masks may belong "
                "to other images, or the images may not be what the network was trained on"
            )
        return None


@dataclass(kw_only=True)
class _Seen:
    own: list[float] = field(default_factory=list)
    pairs: list[tuple[float, float]] = field(default_factory=list)
    """With its own mask, and with another case's."""
    turned: dict[str, list[float]] = field(default_factory=dict)


def fit_of(task: Task) -> Fit | None:
    """What the baseline's answers fit, on test cases drawn by the seed; None where it cannot be asked.

    Images in tiles have no size in common, and answers that are not finite are told where they are measured.
    """
    if task.data.fit.in_tiles:
        return None
    seen, masks = _Seen(), list[MaskArray]()
    with suppress(NotHere):
        for labels_HW, mask_HW in _answered(task):
            _look(task, seen, labels_HW, mask_HW, masks)
            masks.append(mask_HW)
            if len(seen.own) == MOST or (len(seen.pairs) >= FEWEST and surely_above_zero(-np.diff(seen.pairs)[:, 0])):
                break
    return _fit(seen) if len(seen.own) >= FEWEST else None


def drawn_with_foreground(task: Task) -> Iterator[tuple[Case, MaskArray]]:
    """The test cases whose masks (HW, at the image's own size) have any foreground, in an order drawn by the seed."""
    cases = task.data.cases["test"]
    for place in np.random.default_rng(task.seed).permutation(len(cases)):
        mask_HW = task.data.mask(cases[place])
        if ((mask_HW > 0) & (mask_HW != task.data.ignore)).any():
            yield cases[place], mask_HW


def _answered(task: Task) -> Iterator[tuple[MaskArray, MaskArray]]:
    """Labels and masks at the network's size."""
    from export.backends.torch import infer_from_module

    infer = infer_from_module(task.net)
    for case, _ in drawn_with_foreground(task):
        yield task.fitted_labels(infer, case), task.data.whole_mask(case)


def _look(task: Task, seen: _Seen, labels_HW: MaskArray, mask_HW: MaskArray, before: Sequence[MaskArray]) -> None:
    seen.own.append(_dice(task, labels_HW, mask_HW))
    other = next((each for each in reversed(before) if _dice(task, each, mask_HW) < ALIKE), None)
    if other is not None:
        seen.pairs.append((seen.own[-1], _dice(task, labels_HW, other)))
    for title, turned_HW in _ways(mask_HW):
        seen.turned.setdefault(title, []).append(_dice(task, labels_HW, turned_HW))


def _dice(task: Task, labels_HW: MaskArray, mask_HW: MaskArray) -> float:
    """The mean Dice of the classes that either has; one that enlarging or shrinking took away altogether has 0."""
    classes, ignore = len(task.data.class_names), task.data.ignore
    values_KM = score_case(labels_HW, mask_HW, classes=classes, ruler=None, ignore=ignore).values_KM
    known = values_KM[:, DICE][np.isfinite(values_KM[:, DICE])]
    return float(known.mean()) if known.size else 0.0


def _ways(mask_HW: MaskArray) -> list[tuple[str, MaskArray]]:
    """A mask mirrored and turned, with the way in words."""
    upright, across = mask_HW.ndim - 2, mask_HW.ndim - 1
    ways = [
        ("mirrored left to right", np.flip(mask_HW, across)),
        ("mirrored top to bottom", np.flip(mask_HW, upright)),
        ("turned by 180 degrees", np.flip(mask_HW, (upright, across))),
    ]
    if mask_HW.shape[upright] == mask_HW.shape[across]:
        ways.append(("with their axes exchanged", np.swapaxes(mask_HW, upright, across)))
        ways += [(f"turned by {90 * turns} degrees", np.rot90(mask_HW, turns, (upright, across))) for turns in (1, 3)]
    return ways


def _fit(seen: _Seen) -> Fit:
    best, turned = max(seen.turned.items(), key=lambda way: np.mean(way[1]))
    apart = np.mean(turned) - np.mean(seen.own) > CLEARLY and surely_above_zero(np.subtract(turned, seen.own))
    own, others = zip(*seen.pairs, strict=True) if len(seen.pairs) >= FEWEST else ((), ())
    return Fit(
        cases=len(seen.own),
        dice=float(np.mean(seen.own)),
        others=float(np.mean(others)) if others else math.nan,
        better=not others or surely_above_zero(np.subtract(own, others)),
        turned=best if apart else None,
        turned_dice=float(np.mean(turned)),
    )
