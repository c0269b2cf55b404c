"""How much room the built artifact takes on disk."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.search.objectives.judging.objective import OPTIONS, AtMost, AtPlace, Measured


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class SizeMb(AtMost, AtPlace):
    """Megabytes (10^6 bytes) of all of its files."""

    title: ClassVar[str] = "size (MB)"

    def __call__(self, measured: Measured) -> float:
        """As it is built."""
        return float(measured.size_mb)
