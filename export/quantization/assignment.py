"""Which layers of a network in integers are not in integers, on which runtimes, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from export.quantization.rules import Rules

PrecisionName = Literal["int8", "float16", "float32"]
"""What a layer computes in."""
ByRuntime = Mapping[str, Mapping[str, PrecisionName]]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The layers and operators that a pass left in float; all others are in integers."""

    word: str = "int8"
    """Of that pass, for what is told."""
    keep_float: tuple[str, ...] = ()
    """Names or patterns (`head`, `operator:cat_1`) of those in float on every runtime, because the recipe says so."""
    exact: tuple[str, ...] = ()
    """Layers that are in float only where sums of pairs must fit 16 bits: they bear no coarser step."""
    by_runtime: ByRuntime = field(default_factory=dict)
    """What was chosen for one runtime alone, by its word: names, and the precision that each has instead."""

    def in_float(self, rules: Rules) -> dict[str, str]:
        """What is in float under a runtime's rules, whatever these say themselves, and why."""
        chosen = self.by_runtime.get(rules.runtime, {})
        return {
            **dict.fromkeys(self.exact if rules.pairs_in_16_bits else (), "it bears no coarser step than 8 bits allow"),
            **dict.fromkeys(chosen, "mixed precision chose float for this runtime (see what the step says)"),
            **dict.fromkeys(self.keep_float, f"the recipe keeps it in float ({self.word}: keep)"),
        }


ALL_INTEGERS = Assignment()
