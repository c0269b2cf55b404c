"""The files of a folder and all below it."""

from __future__ import annotations

import os
from pathlib import Path

from compress.errors import DataError


def files_below(root: Path) -> list[Path]:
    """Every file, in order of names; hidden ones are a system's own and left out. Links to folders are followed once.

    Raises:
        DataError: if a folder cannot be read: what lies in it would be missed in silence.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror})")

    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(each for each in folders if not each.startswith("."))
        if real not in seen:
            found += [Path(place) / name for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(found)
