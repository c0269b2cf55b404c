"""How much farther surfaces lie apart, case by case, in the built artifact's answers."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.drop_gate import DropGate
from compress.gates.judging.options import OPTIONS


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Hd95Rise(DropGate):
    """Holds where the upper limit of the mean rise in HD95 (mm, or pixels) is under the bound, for every class."""

    title: ClassVar[str] = "hd95_rise"
    metric: ClassVar[str] = "hd95"
