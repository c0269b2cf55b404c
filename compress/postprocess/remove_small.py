"""Components too small to be what is looked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.data.dataset.cases import MaskArray, Spacing
from compress.postprocess.applying.components import Kept, Sizes, indices_of, of_components
from compress.postprocess.applying.step import Kind, Setting

Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]
UNITS = {2: "under_mm2", 3: "under_mm3"}
"""The option in mm for images, and for volumes."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RemoveSmall:
    """Components of a class that are smaller than this become background; one of exactly this size stays.

    Sizes are those at the image's own size. Components are joined at faces, edges and corners (8 neighbours, of
    volumes 26).
    """

    under_px: Annotated[int, Field(ge=1)] | None = None
    """In pixels, of volumes voxels."""
    under_mm2: Size | None = None
    """In mm², of images whose spacing is known."""
    under_mm3: Size | None = None
    """In mm³, of volumes."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, each by itself; None takes every foreground class."""

    on: ClassVar[Kind] = "labels"
    gives: ClassVar[Kind] = "labels"

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.under_px, self.under_mm2, self.under_mm3)) != 1:
            raise ValueError("give one of under_px, under_mm2 (images) and under_mm3 (volumes)")

    def __call__(self, labels_HW: MaskArray, class_names: Sequence[str], spacing: Spacing | None) -> MaskArray:
        """Labels (HW, of volumes DHW) without small components."""
        fewest = self._pixels(spacing)

        def large(sizes: Sizes) -> Kept:
            return sizes >= fewest

        return of_components(labels_HW, indices_of(self.classes, class_names), large)

    def faults(self, setting: Setting) -> Iterator[str]:
        """Names of no class, a unit of other data, or lengths where the spacing is not known."""
        yield from (f"classes: {fault}" for fault in setting.unknown(self.classes or ()))
        right = UNITS[setting.dims]
        for unit in UNITS.values():
            if getattr(self, unit) is not None and unit != right:
                yield f"{unit}: the data is of {'volumes' if setting.dims == 3 else 'images'}; give {right} or under_px"
        if getattr(self, right) is not None and not setting.spacing_known:
            yield f"{right}: the spacing of the images is not known; give data spacing, or under_px"

    def _pixels(self, spacing: Spacing | None) -> float:
        """The fewest pixels that stay, not a whole number where it is given in mm."""
        if self.under_px is not None:
            return self.under_px
        assert spacing is not None, "checked before anything is scored"
        size = self.under_mm2 if self.under_mm3 is None else self.under_mm3
        assert size is not None
        # The quotient is off by some last bits: a component of exactly the size must stay.
        return size / math.prod(spacing) * (1 - 1e-9)
