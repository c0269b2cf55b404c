"""What a gate says of one artifact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Ruling = Literal["holds", "fails", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate says of one artifact."""

    name: str
    bound: Literal["at_most", "at_least"]
    limit: float
    value: float | None
    upper: float | None
    """One-sided 95 % upper limit of a drop; None for gates on a single number."""
    device: str | None
    backend: str | None
    class_name: str | None
    verdict: Ruling
    reason: str
    over: str | None = None
    """What a ratio is over, where the recipe says it: a backend, a step, a chain of `compare`."""

    def as_dict(self) -> dict[str, Any]:
        record = asdict(self)
        record["class"] = record.pop("class_name")
        return record
