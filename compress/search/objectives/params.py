"""How many parameters the network has."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.search.objectives.judging.objective import OPTIONS, Measured, OfTheNetwork


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(OfTheNetwork):
    """Weights, biases and norm parameters that the answer depends on."""

    title: ClassVar[str] = "params"

    def __call__(self, measured: Measured) -> float:
        """As it is built."""
        return float(measured.params)
