"""What masks store: the values or colours of their pixels, before it is known which class each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.data.dataset.images import stored
from compress.data.dataset.masks import IGNORED, MANY, soft_edges, told_as
from compress.errors import DataError

LOOKED_AT = 100
"""Masks that are read, spread over all."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What was found in some masks."""

    values: tuple[int, ...]
    """The stored values, or the colours as 0xRRGGBB, the smallest first."""
    colours: bool
    looked_at: int

    def __str__(self) -> str:
        return ", ".join(told_as(value, self.colours) for value in self.values)


def stored_values(masks: Sequence[Path]) -> Stored:
    """Every value that some of these masks hold.

    Raises:
        DataError: if one cannot be read, or holds values between those that were drawn.
    """
    some = [masks[place] for place in np.linspace(0, len(masks) - 1, min(LOOKED_AT, len(masks))).round().astype(int)]
    counts: Counter[int] = Counter()
    kinds = set[bool]()
    for path in some:
        stored_HW, colours = stored(path)
        found = np.unique(stored_HW).tolist()
        if len(found) > MANY:
            jpeg = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else ""
            raise DataError(soft_edges(f"{path}:", [told_as(value, colours) for value in found], jpeg))
        counts.update(found)
        kinds.add(colours)
    if kinds == {True, False}:
        raise DataError(f"{some[0].parent}: some masks are in colour and some are gray; save all of them in one way")
    return Stored(values=tuple(sorted(counts)), colours=kinds == {True}, looked_at=len(some))


def are_indices(found: Stored, classes: int) -> bool:
    """Whether the values are class indices themselves; 255 beside a class counts nowhere, alone it is one."""
    values = set(found.values)
    return not found.colours and values <= {*range(classes), IGNORED} and bool(values & {*range(1, classes)})
