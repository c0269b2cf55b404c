"""Of each class only its largest connected component: for organs of which there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from compress.data.dataset.cases import MaskArray, Spacing
from compress.postprocess.applying.components import Kept, Sizes, indices_of, of_components
from compress.postprocess.applying.step import Kind, Setting


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LargestComponent:
    """Every other component of the class becomes background.

    Components are joined at faces, edges and corners (8 neighbours, of volumes 26), as MONAI's
    KeepLargestConnectedComponent does; of equally large ones the first in the image's order stays.
    """

    classes: tuple[str, ...] | None = None
    """Names of the classes, each by itself; None takes every foreground class."""

    on: ClassVar[Kind] = "labels"
    gives: ClassVar[Kind] = "labels"

    def __call__(self, labels_HW: MaskArray, class_names: Sequence[str], spacing: Spacing | None) -> MaskArray:
        """Labels (HW, of volumes DHW) with one component of each of the classes at most."""
        return of_components(labels_HW, indices_of(self.classes, class_names), _largest)

    def faults(self, setting: Setting) -> Iterator[str]:
        """Names of no class."""
        yield from (f"classes: {fault}" for fault in setting.unknown(self.classes or ()))


def _largest(sizes: Sizes) -> Kept:
    return np.arange(len(sizes)) == sizes.argmax()
