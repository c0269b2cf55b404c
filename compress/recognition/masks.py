"""What masks store: the values or colours of their pixels, before it is known which class each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.annotated import BACKGROUND, form_of
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
    labels: tuple[str, ...] = ()
    """Of annotations: what each value stands for, the background first."""

    def __str__(self) -> str:
        if self.labels:
            return ", ".join(self.labels[1:])
        return ", ".join(told_as(value, self.colours) for value in self.values)

    def told(self, value: int) -> str:
        """A value as a recipe names it."""
        return self.labels[value] if self.labels else told_as(value, self.colours)

    def read(self, path: Path) -> NDArray[Any]:
        """The values of one mask (HW)."""
        form = form_of(path)
        return stored(path)[0] if form is None else form.drawn(path, partial(self._place, path))

    def _place(self, path: Path, label: str) -> int:
        if label in BACKGROUND:
            return 0
        if label not in self.labels:
            raise DataError(
                f"{path}: the label '{label}' is in none of the {self.looked_at} masks looked at ({self}): name what "
                "is meant with --masks, or mend it"
            )
        return self.labels.index(label)


def stored_values(masks: Sequence[Path]) -> Stored:
    """Every value that some of these masks hold.

    Raises:
        DataError: if one cannot be read, or holds values between those that were drawn.
    """
    some = [masks[place] for place in np.linspace(0, len(masks) - 1, min(LOOKED_AT, len(masks))).round().astype(int)]
    forms = [form_of(path) for path in some]
    labels = {label: None for form, path in zip(forms, some, strict=True) if form for label in form.labels(path)}
    if any(forms):
        if not all(forms):
            raise DataError(f"{some[0].parent}: some masks are images and some annotations; give all in one way")
        named = ("background", *(label for label in labels if label not in BACKGROUND))
        return Stored(values=tuple(range(len(named))), colours=False, looked_at=len(some), labels=named)
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
    return (
        not found.colours
        and not found.labels
        and values <= {*range(classes), IGNORED}
        and bool(values & {*range(1, classes)})
    )
