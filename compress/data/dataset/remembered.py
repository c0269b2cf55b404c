"""A data set that keeps in memory what it has read, for a network after the other that is scored on the same cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from compress.data.dataset.cases import Case, Dataset, FloatArray, MaskArray

MOST_BYTES = 2**27
"""Of images and masks that are kept: 128 MiB; what comes after is read each time."""


@dataclass(frozen=True, kw_only=True)
class Remembered(Dataset):
    """The same cases; decoding and resizing them is done once. Nothing whose time counts may read from it."""

    def whole_pixels(self, case: Case) -> FloatArray:
        """See `Dataset`."""
        return self._once("pixels", case, super().whole_pixels)

    def mask(self, case: Case) -> MaskArray:
        """See `Dataset`."""
        return self._once("mask", case, super().mask)

    def _once(self, what: str, case: Case, read: Callable[[Case], Any]) -> Any:
        if (what, case) not in self._known:
            found = read(case)
            if self._held[0] + found.nbytes > MOST_BYTES:
                return found
            self._known[what, case] = found
            self._held[0] += found.nbytes
        return self._known[what, case]

    @cached_property
    def _known(self) -> dict[tuple[str, Case], Any]:
        return {}

    @cached_property
    def _held(self) -> list[int]:
        """The bytes of what is known."""
        return [0]


def remembered(data: Dataset) -> Remembered:
    """The data set with a memory."""
    return Remembered(**{field.name: getattr(data, field.name) for field in fields(data)})
