"""How long the built artifact takes for one image, at a percentile of its timed runs."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from compress.search.objectives.judging.objective import OPTIONS, AtMost, AtPlace, Measured


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class LatencyMs(AtMost, AtPlace):
    """The network alone, at batch 1."""

    percentile: Literal[50, 90, 95, 99] = 50

    @property
    def title(self) -> str:
        return f"p{self.percentile} (ms)"

    def __call__(self, measured: Measured) -> float | None:
        """In milliseconds."""
        return None if measured.latency_ms is None else float(measured.latency_ms[f"p{self.percentile}"])
