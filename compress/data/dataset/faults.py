"""What is wrong with masks that could be read, told once all of them are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from compress.data.dataset.masks import MANY, advice, soft_edges, told_as

JPEG = (".jpg", ".jpeg")


class _Case(Protocol):
    """What needs to be known of a case here."""

    @property
    def mask(self) -> Path: ...


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of a case when its files were read whole."""

    values: frozenset[int] = frozenset()
    """The class indices in its mask, ignored ones left out."""
    constant: bool = False
    """Whether its image is all of one value."""
    fault: str | None = None
    """Why it could not be read."""

    @property
    def foreground(self) -> frozenset[int]:
        return self.values - {0}


def faults(cases: Sequence[_Case], looks: Sequence[Look], names: Sequence[str]) -> list[str]:
    """Every fault in the order of the cases: files that could not be read, and values that are no class."""
    values = sorted(frozenset().union(*(look.values for look in looks)))
    found = (look.fault or _outside(case.mask, look, values, names) for case, look in zip(cases, looks, strict=True))
    return [fault for fault in found if fault is not None]


def _outside(path: Path, look: Look, values: Sequence[int], names: Sequence[str]) -> str | None:
    """What to say of a mask with values that are no class.

    Args:
        values: what all masks hold together: where it is the only foreground, a value is no mark to be ignored.
    """
    classes = len(names)
    wrong = sorted(index for index in look.values if index >= classes)
    if not wrong:
        return None
    jpeg = path.suffix.lower() in JPEG
    if (jpeg and len(look.values) > classes) or len(wrong) > MANY:
        return soft_edges(f"{path}:", [told_as(value, colours=False) for value in wrong], "JPEG" if jpeg else "")
    what = f"{path}: class {wrong[0]} is outside the {classes} classes 0..{classes - 1}"
    outside = [value for value in values if value >= classes]
    if len(outside) == 1 and any(0 < value < classes for value in values):
        return f"{what}; correct the mask, the number of classes, or set ignore: {wrong[0]}"
    held = [*values[:8], "..."] if len(values) > 8 else values
    foreground = [value for value in values if value][: max(8, classes)]
    return f"{what}: the masks hold the values {', '.join(map(str, held))}; {advice(foreground, names)}"
