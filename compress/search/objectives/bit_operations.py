"""How many multiply-accumulates one image takes, each times the bits of its weight."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.search.objectives.judging.objective import OPTIONS, AtMost, AtPlace, Measured


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class BitOperations(AtMost, AtPlace):
    """Multiply-accumulates times bits (32, 16, 8, ...), as the runtime gets the network."""

    title: ClassVar[str] = "MACs × bits"

    def __call__(self, measured: Measured) -> float | None:
        """None where it was not counted."""
        return None if measured.bit_operations is None else float(measured.bit_operations)
