"""Masks that are no images of class values: each form is a file of compress/data/dataset/forms.

A form has a way of its own to write down where a mask is: a `Path` that need not be a file, such as
`annotations.json#images/a.png`. What it draws goes by labels, the names that whoever annotated gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from export.registry import words

FORMS = "compress.data.dataset.forms"
BACKGROUND = ("background", "_background_")
"""Labels of what is no class, as annotation programs write them."""
IndexOf = Callable[[str], int]
"""The class index of a label; an error with the file's name where there is none."""


class Form(Protocol):
    """What a module of compress/data/dataset/forms has."""

    def takes(self, path: Path) -> bool:
        """Whether a mask's path is written in this form."""
        ...

    def files(self, path: Path) -> tuple[Path, ...]:
        """The files that such a mask is read from."""
        ...

    def labels(self, path: Path) -> tuple[str, ...]:
        """The labels that it may have, in a fixed order."""
        ...

    def drawn(self, path: Path, index_of: IndexOf) -> NDArray[np.uint8]:
        """Class indices (HW); where regions overlap, the later one is on top.

        Raises:
            DataError: if it cannot be read.
        """
        ...

    def found(self, root: Path, images: Sequence[Path]) -> list[tuple[Path, Path]]:
        """Images with masks of this form, of those in a folder; all paths relative to it."""
        ...


def forms() -> list[Form]:
    """All there are."""
    return [cast(Form, import_module(f"{FORMS}.{word}")) for word in words(FORMS)]


def form_of(path: Path) -> Form | None:
    """The form that a mask's path is written in; None of an image."""
    text = str(path)
    if "{" not in text and ".json" not in text:
        return None
    return next((form for form in forms() if form.takes(path)), None)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a mask is read from."""
    form = form_of(path)
    return (path,) if form is None else form.files(path)
