"""The rows of a report beside their baseline, and the steps that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.report.derived.drops import Span, drop_of, span, upper_of
from compress.report.derived.numbers import number
from compress.report.derived.recorded import Json, baseline_row, p50_of, ratio, reference, scores_of


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the report beside its baseline; None where something was not measured."""

    row: Json
    step: str
    backend: str
    device: str
    measured: bool
    dice: float | None
    """Mean over cases, then over foreground classes."""
    drop: float | None
    """From the baseline under torch; positive is worse."""
    drop_upper: float | None
    """Upper 95 % limit of the drop."""
    lost: Span | None
    """The paired drop from the baseline under torch; a baseline has none."""
    lost_here: Span | None
    """The paired drop from the step before on the same backend and device."""
    p50_ms: float | None
    speed_up: float | None
    """Over the baseline on the same backend and device."""
    over_torch: float | None
    """Over the baseline under torch on the same device."""
    size_mb: float | None
    size_ratio: float | None
    """How many times smaller than the baseline for the same backend and device."""
    peak_memory_mb: float | None
    bit_operations: float | None
    """Multiply-accumulates, each times the bits of its weight."""
    fewer_bits: float | None
    """How many times fewer bit operations than the baseline for the same backend and device."""

    scored_on: int | None
    """How many cases its scores are of, where they are fewer than the last step's."""

    @property
    def title(self) -> str:
        return f"{self.step} on {self.backend} ({self.device})"

    @property
    def note(self) -> str:
        """Why numbers are missing, or how far the latency can be believed."""
        if not self.measured:
            built = "built, " if self.row["status"] == "built" else ""
            return f"{built}not measured: {self.row.get('reason') or 'no reason was recorded'}"
        samples, latency = self.part("latency_ms", "n"), self.row.get("latency_ms") or {}
        facts = [
            self.scored_on is not None and f"scored on {self.scored_on} cases",
            latency.get("screening") and "screening",
            samples is not None and f"n = {samples:.0f}",
            latency.get("settled", True) is False and "warm-up did not settle",
            latency.get("throttled") and "throttled",
        ]
        return ", ".join(fact for fact in facts if fact)

    def part(self, group: str, key: str) -> float | None:
        """A number inside scores, latency_ms or parity; None unless the row was measured."""
        return number((self.row.get(group) or {}).get(key)) if self.measured else None


def lines(report: Json) -> list[Line]:
    """Every row with its drop, speed-up and size ratio."""
    return [_line(report, row) for row in report["rows"]]


def _line(report: Json, row: Json) -> Line:
    rows, p50 = report["rows"], p50_of(row)
    same, torch = (baseline_row(rows, backend, row["device"]) for backend in (row["backend"], "torch"))
    size, bits = number(row.get("size_mb")), number(row.get("bit_operations"))
    return Line(
        row=row,
        step=row["step"],
        backend=row["backend"],
        device=row["device"],
        measured=row["status"] == "measured",
        dice=number(scores_of(row).get("dice")),
        scored_on=_fewer_cases(report, row),
        drop=drop_of(report, row),
        drop_upper=upper_of(row),
        lost=span(row, "dice_drop"),
        lost_here=span(row, "step_drop"),
        p50_ms=p50,
        speed_up=ratio(p50_of(same), p50),
        over_torch=ratio(p50_of(torch), p50),
        size_mb=size,
        size_ratio=ratio(number(same.get("size_mb")), size),
        peak_memory_mb=number(row.get("peak_memory_mb")) if row["status"] == "measured" else None,
        bit_operations=bits,
        fewer_bits=ratio(number(same.get("bit_operations")), bits),
    )


def _fewer_cases(report: Json, row: Json) -> int | None:
    own, most = (len(scores_of(each).get("per_case") or {}) for each in (row, report["rows"][-1]))
    return own if 0 < own < most else None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the recipe, or the last one of a chain that it is compared with, and what became of it."""

    name: str
    compared: bool
    """Whether it belongs to a chain beside the recipe's own."""
    options: Json
    seconds: float | None
    notes: Sequence[str]
    params: float | None
    macs: float | None
    smaller: float | None
    """How many times fewer parameters than the baseline."""
    fewer: float | None
    """How many times fewer multiply-accumulates than the baseline."""
    lines: Sequence[Line]


def steps(report: Json) -> list[Step]:
    """Every step in the recipe's order, then the chains it is compared with, each with its lines."""
    by_step: dict[str, list[Line]] = {}
    for line in lines(report):
        by_step.setdefault(line.step, []).append(line)
    # A report of an older version has no steps of its own; its rows know them.
    told = report.get("steps") or [{"step": name, **_sizes(of[0].row)} for name, of in by_step.items()]
    first = told[0] if told else {}
    each = [_step(step, first, by_step.get(step["step"], [])) for step in told]
    return sorted(each, key=lambda step: step.compared)


def _sizes(row: Json) -> dict[str, Any]:
    return {"params": row.get("params"), "macs": row.get("macs")}


def _step(step: Json, first: Json, own: Sequence[Line]) -> Step:
    params, macs = number(step.get("params")), number(step.get("macs"))
    return Step(
        name=step["step"],
        compared=step.get("chain") is not None,
        options=step.get("options") or {},
        seconds=number(step.get("seconds")),
        notes=list(step.get("notes") or ()),
        params=params,
        macs=macs,
        smaller=ratio(number(first.get("params")), params),
        fewer=ratio(number(first.get("macs")), macs),
        lines=own,
    )


def baseline(report: Json) -> Line | None:
    """The baseline under torch, which every drop is taken from."""
    row = reference(report["rows"])
    return next((line for line in lines(report) if line.row is row), None)


def last_step(report: Json) -> list[Line]:
    """The lines of the step that the gates judge."""
    every = lines(report)
    return [line for line in every if line.step == every[-1].step]
