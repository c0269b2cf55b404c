"""What a gate says of one artifact, and the bound that it says it by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Ruling = Literal["holds", "fails", "inconclusive"]
Side = Literal["at_most", "at_least"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found of one number against its bound."""

    ruling: Ruling
    reason: str = ""
    value: float | None = None
    upper: float | None = None
    """One-sided 95 % upper limit of a drop; None for gates on a single number."""
    class_name: str | None = None


def inconclusive(reason: str) -> Outcome:
    """What is said where a number is missing: such a gate is never skipped, and never holds."""
    return Outcome(ruling="inconclusive", reason=reason)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a number may be at most, or must be at least."""

    side: Side
    limit: float

    def outcome(self, value: float | None) -> Outcome:
        """What is found of a number that was measured once; None where it was not."""
        if value is None or not math.isfinite(value):
            return inconclusive("not measured")
        inside = value <= self.limit if self.side == "at_most" else value >= self.limit
        return Outcome(ruling="holds" if inside else "fails", value=value)


def at_most(limit: float) -> Bound:
    """The upper bound."""
    return Bound(side="at_most", limit=limit)


def at_least(limit: float) -> Bound:
    """The lower bound."""
    return Bound(side="at_least", limit=limit)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate says of one artifact."""

    name: str
    bound: Side
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
