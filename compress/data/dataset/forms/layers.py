"""One image of on and off a class: a mask is `masks/{polyp|tool}/a.png`, the classes between braces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.annotated import IndexOf
from compress.data.dataset.images import stored
from compress.data.dataset.masks import MANY, soft_edges, told_as
from compress.data.dataset.pairs import case_key, mask_files
from compress.errors import DataError

_BRACES = re.compile(r"\{([^{}/]+)\}")


def takes(path: Path) -> bool:
    """Whether a mask's path has classes between braces."""
    return _BRACES.search(str(path)) is not None and not path.is_file()


def files(path: Path) -> tuple[Path, ...]:
    """One of each class."""
    before, _, after = _BRACES.split(str(path), maxsplit=1)
    return tuple(Path(f"{before}{label}{after}") for label in labels(path))


def labels(path: Path) -> tuple[str, ...]:
    """The classes between the braces."""
    match = _BRACES.search(str(path))
    return tuple(match[1].split("|")) if match else ()


def drawn(path: Path, index_of: IndexOf) -> NDArray[np.uint8]:
    """Class indices (HW): what is not 0 in a class's file is of it; later classes are on top."""
    mask_HW: NDArray[np.uint8] | None = None
    for label, file in zip(labels(path), files(path), strict=True):
        stored_HW, colours = stored(file)
        values = np.unique(stored_HW[stored_HW != 0]).tolist()
        told = [told_as(value, colours) for value in values]
        if len(values) > MANY:
            raise DataError(soft_edges(f"{file}:", told))
        if len(values) > 1:
            raise DataError(
                f"{file}: a mask of the class '{label}' alone is 0 and one value; it holds {', '.join(told)}"
            )
        mask_HW = np.zeros(stored_HW.shape, np.uint8) if mask_HW is None else mask_HW
        if stored_HW.shape != mask_HW.shape:
            raise DataError(
                f"{file}: is {stored_HW.shape[::-1]}, the masks of the other classes are {mask_HW.shape[::-1]}"
            )
        mask_HW[stored_HW != 0] = index_of(label)
    assert mask_HW is not None, "braces hold a class at least"
    return mask_HW


def found(root: Path, images: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Images with files of their names in folders of classes, inside or beside one of masks: `masks/polyp/a.png`."""
    by_key = {case_key(image): image for image in images}
    classes: dict[tuple[tuple[str, ...], Path, str], list[str]] = {}
    for path in mask_files(root):
        label, parent = path.parent.name, path.parent.parent
        key = case_key(parent / path.name)
        if label and key in by_key:
            classes.setdefault((key, parent, path.name), []).append(label)
    return sorted(
        (by_key[key], parent / f"{{{'|'.join(labels)}}}" / name) for (key, parent, name), labels in classes.items()
    )
