"""How many times fewer multiply-accumulates, each times the bits of its weight, the artifact does."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.options import OPTIONS
from compress.gates.judging.times_less_gate import TimesLessGate


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class FewerBitOperations(TimesLessGate):
    """Holds where the ratio of both numbers of bit operations is at least the bound."""

    title: ClassVar[str] = "fewer_bit_operations"
    number: ClassVar[str] = "bit_operations"
