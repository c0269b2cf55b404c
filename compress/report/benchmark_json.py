"""The last step's numbers as github-action-benchmark reads them (tool: customSmallerIsBetter), to be drawn over time.

A list of {name, unit, value, range, extra}, where less is better: https://github.com/benchmark-action/github-action-benchmark
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from compress.report.derived.compared import Line, last_step
from compress.report.derived.recorded import Json


def to_benchmark_json(report: Mapping[str, Any]) -> str:
    """The median latency, the size, and the drop of the mean Dice of each artifact of the last step.

    What was not measured has no entry: a zero would be drawn as the best there ever was.
    """
    entries = [entry for line in last_step(report) for entry in _entries(line)]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _entries(line: Line) -> Iterator[dict[str, Any]]:
    # Without the step's number, a pass more or less would begin another curve.
    title = f"{line.backend} ({line.device})"
    if line.p50_ms is not None:
        yield _entry(f"{title}: p50 latency", "ms", line.p50_ms, _of_times(line.row["latency_ms"]), line.title)
    if line.size_mb is not None:
        yield _entry(f"{title}: size", "MB", line.size_mb, None, line.title)
    if line.lost is not None:
        limits = (line.lost.lower, line.lost.upper)
        text = None if None in limits else f"{limits[0]:.4f} to {limits[1]:.4f}"
        yield _entry(f"{title}: Dice drop", "Dice", line.lost.mean, text, line.title)


def _of_times(times: Json) -> str | None:
    limits = times.get("p50_limits")
    return f"{limits[0]:g} to {limits[1]:g}" if limits else None


def _entry(name: str, unit: str, value: float, between: str | None, step: str) -> dict[str, Any]:
    shown = {} if between is None else {"range": between}
    return {"name": name, "unit": unit, "value": value, **shown, "extra": step}
