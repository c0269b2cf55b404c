"""How many multiply-accumulates one image takes."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.search.objectives.judging.objective import OPTIONS, Measured, OfTheNetwork


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Macs(OfTheNetwork):
    """Multiply-accumulates; integers count like floats."""

    title: ClassVar[str] = "MACs"

    def __call__(self, measured: Measured) -> float:
        """Of one image."""
        return float(measured.macs)
