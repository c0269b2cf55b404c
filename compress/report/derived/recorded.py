"""The rows of a report, as report.json holds them: which is the baseline's, and what was scored and timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compress.report.derived.numbers import number

Json = Mapping[str, Any]


def reference(rows: Sequence[Json]) -> Json:
    """The baseline under torch, which drops are taken from; empty where it has no scores."""
    return next((row for row in _baselines(rows, "torch") if scores_of(row)), {})


def reference_in_words(rows: Sequence[Json]) -> str:
    """The baseline that drops are taken from; without torch, as where every device is elsewhere, each has its own."""
    if reference(rows) or not any(row["step"] == "baseline" and scores_of(row) for row in rows):
        return "the baseline under torch"
    return "the baseline on the same backend and device (torch ran on none)"


def baseline_row(rows: Sequence[Json], backend: str, device: str) -> Json:
    """The baseline on one backend and device; empty where there is none."""
    return next((row for row in _baselines(rows, backend) if row["device"] == device), {})


def _baselines(rows: Sequence[Json], backend: str) -> Iterator[Json]:
    return (row for row in rows if row["step"] == "baseline" and row["backend"] == backend)


def scores_of(row: Json) -> Json:
    """The scores of a row; empty where it was not measured."""
    return (row.get("scores") or {}) if row.get("status") == "measured" else {}


def class_score(row: Json, class_name: str | None, metric: str) -> float | None:
    """A mean over cases, or a count, of one class; of the mean over classes where it is None."""
    scores = scores_of(row)
    return number((scores if class_name is None else (scores.get("per_class") or {}).get(class_name) or {}).get(metric))


def p50_of(row: Json) -> float | None:
    """The median latency of a row in ms; None where it was not measured."""
    return number((row.get("latency_ms") or {}).get("p50")) if row.get("status") == "measured" else None


def ratio(before: float | None, after: float | None) -> float | None:
    """How many times less it has become; None where one was not measured."""
    return before / after if before is not None and after else None


def class_names(report: Json) -> list[str]:
    """Foreground classes."""
    return list(report["data"].get("classes") or [])[1:]
