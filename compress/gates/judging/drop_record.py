"""The Dice drop of a row as the report records it beside its scores: of the mean, and of every class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from compress.gates.judging.comparison import reference_row, step_row
from compress.gates.judging.non_inferiority import Drop
from compress.gates.judging.paired_drop import paired_drop
from compress.measure.row import Row
from compress.measure.segmentation import Scores


def baseline_drop(rows: Sequence[Row], row: Row) -> dict[str, Any] | None:
    """From the baseline, by class and "mean"; None of a baseline, and where one of both has no scores."""
    return None if row.step == "baseline" else drop_between(reference_row(rows, row), row)


def step_drop(rows: Sequence[Row], row: Row, before: str) -> dict[str, Any] | None:
    """The same, from the step named `before` on the same backend and device."""
    return None if row.step == "baseline" else drop_between(step_row(rows, before, row), row)


def drop_between(before: Row | None, row: Row) -> dict[str, Any] | None:
    """The same, from any other row on the cases that both were scored on."""
    if before is None or before.scores is None or row.scores is None:
        return None
    # `scoring: {others: n}` scores what no drop gate reads on fewer cases.
    was, now = (Scores.from_dict(dict(scores)) for scores in (before.scores, row.scores))
    was, now = was.among(now.cases), now.among(was.cases)
    return {name or "mean": _record(paired_drop(was, now, name, "dice")) for name in (None, *now.class_names)}


def _record(drop: Drop) -> dict[str, Any]:
    return {
        "drop": round(drop.mean, 6) if drop.n else None,
        "lower": round(drop.lower, 6) if math.isfinite(drop.lower) else None,
        "upper": round(drop.upper, 6) if math.isfinite(drop.upper) else None,
        "n": drop.n,
        "collapsed": drop.collapsed,
    }
