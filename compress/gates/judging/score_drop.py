"""What is found of the scores of an artifact: each class, against the baseline's on the same cases."""

from __future__ import annotations

from collections.abc import Sequence

from compress.gates.judging.artifacts import where_shown
from compress.gates.judging.comparison import reference_row
from compress.gates.judging.non_inferiority import rule
from compress.gates.judging.paired_drop import COLLAPSE, paired_drop
from compress.gates.judging.verdict import Outcome, inconclusive
from compress.measure.row import Row
from compress.measure.segmentation import Scores
from compress.measure.skill import lacking


def drop_outcomes(metric: str, margin: float, rows: Sequence[Row], row: Row, class_name: str | None) -> list[Outcome]:
    """What is found of the drop of a metric (of a distance, the rise) of each class, or of one.

    Args:
        margin: what the mean over all such cases must be under.
    """
    before = reference_row(rows, row)
    if before is None or before.scores is None or row.scores is None:
        return where_shown(row, [inconclusive("not measured: the baseline has no scores")])
    was, now = (Scores.from_dict(dict(scores)) for scores in (before.scores, row.scores))
    names = judged_classes(now, class_name)
    return where_shown(row, [_of_class(was, now, name, metric, margin) for name in names])


def judged_classes(scores: Scores, class_name: str | None) -> Sequence[str]:
    """The classes that a gate judges: every one, or the one that it names."""
    return scores.class_names if class_name is None else (class_name,)


def no_class(scores: Scores, class_name: str) -> Outcome:
    """What is said where a gate names a class that there is not."""
    reason = f"there is no class '{class_name}'; there are {', '.join(scores.class_names)}"
    return Outcome(ruling="inconclusive", reason=reason, class_name=class_name)


def _of_class(was: Scores, now: Scores, class_name: str, metric: str, margin: float) -> Outcome:
    if class_name not in now.class_names:
        return no_class(now, class_name)
    drop = paired_drop(was, now, class_name, metric)
    ruling, reason = rule(drop, margin)
    if (lack := lacking(was, class_name)) is not None:
        ruling, reason = "inconclusive", lack
    if drop.collapsed:
        reason += f"; {drop.collapsed} lose more than {COLLAPSE:.2f}"
    return Outcome(ruling=ruling, reason=reason, value=drop.mean, upper=drop.upper, class_name=class_name)
