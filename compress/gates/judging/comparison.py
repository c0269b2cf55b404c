"""What an artifact is compared with: the baseline on its backend or another, a step, or a chain of `compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compress.gates.judging.verdict import Bound, Outcome, inconclusive
from compress.measure.row import Row, Status


def baseline_row(
    rows: Sequence[Row], backend: str, device: str, states: Sequence[Status] = ("measured",)
) -> Row | None:
    """The baseline on a backend of this device, or of the host's CPU."""
    there = [row for row in rows if row.step == "baseline" and row.backend == backend and row.status in states]
    return next((row for on in (device, "cpu") for row in there if row.device == on), None)


def reference_row(rows: Sequence[Row], row: Row) -> Row | None:
    """The baseline that the drop of a row is taken from: under torch, or else on the row's own backend."""
    return baseline_row(rows, "torch", row.device) or baseline_row(rows, row.backend, row.device)


def step_row(rows: Sequence[Row], step: str, beside: Row) -> Row | None:
    """Another step on the backend and device of a row."""
    wanted = (step, beside.backend, beside.device)
    return next((row for row in rows if (row.step, row.backend, row.device) == wanted), None)


def compared(rows: Sequence[Row], over: str | None, row: Row) -> tuple[Row | None, str]:
    """The row that a ratio is taken from, and how to speak of it.

    Args:
        over: a backend, a step or a chain of `compare`; None is the baseline on the row's own backend.
    """
    if over is None or any(each.backend == over for each in rows):
        backend = over or row.backend
        states: tuple[Status, ...] = ("measured", "built") if over is None else ("measured",)
        return baseline_row(rows, backend, row.device, states), f"the baseline on {backend}"
    step = step_row(rows, over, row)
    refused = f" ({step.reason})" if step and step.status == "not measured" and step.reason else ""
    return step, f"{over} on {row.backend}{refused}"


def times_less(
    bound: Bound, number: Callable[[Row], float | None], rows: Sequence[Row], over: str | None, row: Row
) -> Outcome:
    """How many times less a number of a row is than that of what the row is compared with."""
    now = number(row)
    if not now:
        return bound.outcome(now)
    before, name = compared(rows, over, row)
    was = None if before is None else number(before)
    return bound.outcome(was / now) if was else inconclusive(f"not measured: {name}")
