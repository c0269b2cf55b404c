"""Dice lost, case by case, from the network that was trained to the built artifact."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.drop_gate import DropGate
from compress.gates.judging.options import OPTIONS


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiceDrop(DropGate):
    """Holds where the upper limit of the mean paired drop in Dice is under the bound, for every class."""

    title: ClassVar[str] = "dice_drop"
    metric: ClassVar[str] = "dice"
