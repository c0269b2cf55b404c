"""Arrays for each view (way of augmenting) of each train case, computed once and cached in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Name = tuple[int, int]
"""(view, case)."""


class ArrayCache:
    """An array of one shape and kind for every (view, case).

    A run that was killed finds them again: an array counts as there only after it was written.
    """

    def __init__(self, path: Path, views: int, cases: int, shape: Sequence[int], kind: str) -> None:
        self.cases = cases
        self._given = (path, views, cases, tuple(shape), kind)
        marks = path.with_suffix(".filled")
        fresh = not (path.exists() and marks.exists())
        mode: Literal["w+", "r+"] = "w+" if fresh else "r+"
        self.values = np.memmap(path, np.dtype(kind), mode, shape=(views * cases, *shape))
        self.filled = np.memmap(marks, np.bool_, mode, shape=(views * cases,))

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the same files.
        return ArrayCache, self._given

    def has(self, names: Sequence[Name]) -> bool:
        """Whether the arrays of all of these names are there."""
        return bool(self.filled[self._rows(names)].all())

    def load(self, names: Sequence[Name]) -> NDArray[Any]:
        """The arrays of these names, stacked."""
        return np.array(self.values[self._rows(names)])

    def store(self, names: Sequence[Name], arrays: NDArray[Any]) -> NDArray[Any]:
        """Keep the arrays; returns them as `load` will, rounded to the cache's kind."""
        rows = self._rows(names)
        self.values[rows] = arrays
        self.filled[rows] = True
        return np.array(self.values[rows])

    def _rows(self, names: Sequence[Name]) -> list[int]:
        return [view * self.cases + case for view, case in names]
