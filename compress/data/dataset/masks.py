"""Which class each stored value, or each colour, of a mask is: the `masks` of a recipe's data.

Shape legend: H height, W width (of volumes three axes, and a pixel is a voxel).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError

Given = Mapping[str | int, str | int]
"""As a recipe gives it: stored values (255) or colours ('#ff0000', '[255, 0, 0]'), each with a class."""
Number = TypeVar("Number", bound=np.generic)

IGNORE = "ignore"
"""The word for pixels that are no class and count nowhere."""
IGNORED = 255
"""The index that such pixels get, whatever value they were stored as."""
LARGEST = 2**31 - 1
MANY = 16
"""A mask with more values than this that no class was asked for has soft edges: classes are few."""
CLOSE = 1e-3
"""Within this of a whole number a stored class is that number: files scaled by a slope, or saved as float32, round."""


@dataclass(frozen=True, kw_only=True)
class MaskValues:
    """The class index of every stored value, or of every colour as 0xRRGGBB."""

    values: tuple[tuple[int, int], ...]
    colours: bool = False
    labels: tuple[tuple[str, int], ...] = ()
    """The class index of labels that annotations have, where they are not the names of classes."""

    @property
    def ignored(self) -> int | None:
        """The class index of pixels that count nowhere; None where there are none."""
        return IGNORED if IGNORED in dict((*self.values, *self.labels)).values() else None

    def indices(self, stored_HW: NDArray[Any], path: Path, *, soft: str = "") -> NDArray[np.uint8]:
        """Class indices (HW) of stored values or colours (HW).

        Args:
            soft: why the file may hold values between those that were drawn, such as "JPEG".

        Raises:
            DataError: if a value is there that is not named.
        """
        index_HW = np.zeros(stored_HW.shape, np.uint8)
        named_HW = np.zeros(stored_HW.shape, bool)
        for value, index in self.values:
            there_HW = stored_HW == value
            index_HW[there_HW] = index
            named_HW |= there_HW
        if not named_HW.all():
            # Where nothing else is foreground, what is unnamed is likely what is looked for: it is no mark to ignore.
            foreground = ((index_HW > 0) & (index_HW != IGNORED)).any()
            remedy = f"add it with its class, or as {IGNORE}" if foreground else "add it with its class"
            raise DataError(self._unnamed(stored_HW[~named_HW], path, soft, remedy))
        return index_HW

    def _unnamed(self, stored_N: NDArray[Any], path: Path, soft: str, remedy: str) -> str:
        found = np.unique(stored_N).tolist()
        told = [told_as(value, self.colours) for value in found]
        if soft or len(found) > MANY:
            return soft_edges(f"{path}:", told, soft)
        what = "colour" if self.colours else "value"
        known = ", ".join(told_as(value, self.colours) for value, _ in self.values)
        more = f" (and {', '.join(told[1:4])})" if told[1:] else ""
        return f"{path}: holds the {what} {told[0]}{more}, which masks does not name (it names {known}); {remedy}"


def mask_values(given: Given | None, names: Sequence[str], ignore: int | None, source: str) -> MaskValues | None:
    """What a recipe's `masks` says, once the classes are known; None where it says nothing.

    A stored 0, or black, is the background where nothing else is named so.

    Args:
        names: the name of every class, background first.
        ignore: a stored value that counts nowhere, beside those that `masks` calls so.

    Raises:
        DataError: if it names a class that does not exist.
    """
    if given is None:
        return None
    labels = labels_in(given)
    stored = {key: target for key, target in given.items() if key not in labels}
    parsed, colours = parsed_masks(stored) if stored or not labels else ([], False)
    found = {value: _index(target, names, f"{source}: masks: {told_as(value, colours)}") for value, target in parsed}
    if 0 not in found.values():
        found.setdefault(0, 0)
    if ignore is not None:
        value = ignore * 0x010101 if colours else ignore
        if found.setdefault(value, IGNORED) != IGNORED:
            raise DataError(
                f"{source}: {told_as(value, colours)} has a class in masks, and ignore names it too; drop one"
            )
    named = tuple((label, _index(target, names, f"{source}: masks: {label}")) for label, target in labels.items())
    return MaskValues(values=tuple(sorted(found.items())), colours=colours, labels=named)


def parsed_masks(given: Given) -> tuple[list[tuple[int, str | int]], bool]:
    """Each value with its class, and whether the values are colours (0xRRGGBB).

    Raises:
        ValueError: with what would be right.
    """
    if not given:
        raise ValueError("masks names no value; give each its class, such as masks: {0: background, 255: polyp}")
    keys = [_key(key) for key in given]
    colours = any(colour for _, colour in keys)
    # Among colours a plain number is a gray.
    values = [value if colour or not colours else _gray(value) for value, colour in keys]
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"masks: {told_as(value, colours)} is given twice")
    return list(zip(values, given.values(), strict=True)), colours


def labels_in(given: Given) -> dict[str, str | int]:
    """What it says of labels (of annotations, of folders of classes): what begins with a letter."""
    return {key: target for key, target in given.items() if isinstance(key, str) and key[:1].isalpha()}


def names_of(given: Given | None, names: tuple[str, ...] | None, classes: int) -> tuple[str, ...] | None:
    """The class names that `masks` tells where the data gives none: with one class besides the background."""
    if given is None or names is not None or classes > 2:
        return names
    words = [str(target) for target in given.values() if not str(target).isdecimal() and target != IGNORE]
    foreground = [word for word in dict.fromkeys(words) if word != "background"]
    return ("background", foreground[0]) if len(foreground) == 1 else None


def _key(key: Any) -> tuple[int, bool]:
    """A stored value, or a colour as 0xRRGGBB and True."""
    text = str(key).strip()
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:], 16), True
    parts = text.strip("[]()").split(",")
    if len(parts) == 3 and all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
        red, green, blue = map(int, parts)
        return red << 16 | green << 8 | blue, True
    if text.isdecimal() and int(text) <= LARGEST:
        return int(text), False
    raise ValueError(
        f"masks: '{text}' is neither a stored value (0, 255) nor a colour ('#ff0000' or [255, 0, 0]); write what the "
        "files hold before the class that it is"
    )


def _gray(value: int) -> int:
    if value > 255:
        raise ValueError(f"masks: {value} stands among colours, where a number is a gray from 0 to 255")
    return value * 0x010101


def _index(target: str | int, names: Sequence[str], where: str) -> int:
    if target in names:
        return names.index(str(target))
    if target == IGNORE:
        return IGNORED
    if str(target).isdecimal() and int(target) < len(names):
        return int(target)
    near = difflib.get_close_matches(str(target), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)} (data classes gives the names)"
    raise DataError(f"{where} is to be '{target}', but there is no class of that name; {hint}")


def told_as(value: int, colours: bool) -> str:
    """A value or a colour as a recipe names it."""
    return f"'#{value:06x}'" if colours else str(value)


def suggested(found: Sequence[int], names: Sequence[str], *, colours: bool = False) -> str:
    """A `masks` to paste for the values that were found: 0 is the background, the others the classes in order."""
    values = [0, *(value for value in found if value != 0)]
    targets = [names[place] if place < len(names) else "..." for place in range(len(values))]
    pairs = (f"{told_as(value, colours)}: {target}" for value, target in zip(values, targets, strict=True))
    return f"masks: {{{', '.join(pairs)}}}"


def soft_edges(where: str, told: Sequence[str], soft: str = "") -> str:
    """What to say of a mask (`where`) that has values between those that its classes were drawn in."""
    why = f"{soft} has changed" if soft else "smoothing (antialiased edges, a resize) or JPEG has changed"
    return (
        f"{where} holds {len(told)} values that are no class ({', '.join(told[:3])}{', ...' if told[3:] else ''}): "
        f"{why} what was drawn; make the masks again without it, or set every pixel to its nearest class once, and "
        "save as PNG"
    )


class NotIndices(DataError):
    """A mask that holds something else than class indices, and what it holds: `masks` can name it."""

    def __init__(self, fault: str, found: Sequence[int], *, colours: bool = False) -> None:
        self.fault, self.found, self.colours = fault, tuple(found), colours
        super().__init__(self.advised([str(index) for index in range(len(self.found) + 1)]))

    def advised(self, names: Sequence[str]) -> str:
        """The fault, and a `masks` to paste with these class names."""
        told = [told_as(value, self.colours) for value in self.found]
        return f"{self.fault} ({', '.join(told)}); {advice(self.found, names, colours=self.colours)}"


def advice(found: Sequence[int], names: Sequence[str], *, colours: bool = False) -> str:
    """How to say which class each of the stored values is, with what was found ready to paste."""
    what = "colour" if colours else "stored value"
    return f"say in data which class each {what} is, such as {suggested(found, names, colours=colours)}"


def whole_numbers(stored_HW: NDArray[np.floating[Any]], path: Path, what: str = "pixel") -> NDArray[np.int64]:
    """Stored floating-point classes as whole numbers.

    Raises:
        DataError: if one is farther than `CLOSE` from any.
    """
    if not np.isfinite(stored_HW).all():
        raise DataError(f"{path}: holds {what}s that are NaN or infinite")
    rounded_HW = np.rint(stored_HW)
    broken = stored_HW[np.abs(stored_HW - rounded_HW) > CLOSE]
    if len(broken):
        raise DataError(f"{path}: a mask holds one class index a {what}, but this one has {broken[0]:.8g}")
    return rounded_HW.astype(np.int64)


def as_indices(stored_HW: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Stored values that are class indices themselves.

    Raises:
        DataError: if one does not fit.
    """
    low, high = int(stored_HW.min()), int(stored_HW.max())
    if low < 0:
        raise DataError(f"{path}: class {low} does not fit in 0..255")
    if high > 255:
        found = np.unique(stored_HW).tolist()
        fault = f"{path}: class {high} does not fit in 0..255"
        raise NotIndices(f"{fault}: it holds the values", found) if len(found) <= MANY else DataError(fault)
    return stored_HW.astype(np.uint8)
