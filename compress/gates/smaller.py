"""How many times less room the artifact takes than the baseline's or another step's."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.options import OPTIONS
from compress.gates.judging.times_less_gate import TimesLessGate


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Smaller(TimesLessGate):
    """Holds where the ratio of both sizes on disk is at least the bound."""

    title: ClassVar[str] = "smaller"
    number: ClassVar[str] = "size_mb"
