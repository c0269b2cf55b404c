"""What a report says of Dice that was lost: by class, by case, and between which limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.gates.judging.paired_drop import collapsed, pairs
from compress.report.derived.numbers import NOTHING, fixed, number, signed
from compress.report.derived.recorded import Json, class_score, reference, scores_of

Pairs = Sequence[tuple[float, float]]
"""Dice before and after, case by case."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A mean between its one-sided 95 % limits; None where there are too few cases for one."""

    mean: float
    lower: float | None
    upper: float | None


def span(row: Json, key: str) -> Span | None:
    """The mean drop that a row records under `key`: dice_drop or step_drop."""
    drop = ((row.get(key) or {}).get("mean") or {}) if row["status"] == "measured" else {}
    mean = number(drop.get("drop"))
    return None if mean is None else Span(mean=mean, lower=number(drop.get("lower")), upper=number(drop.get("upper")))


def between(span: Span | None) -> str:
    """A drop with its interval: +0.0012 [-0.0003, 0.0028]."""
    if span is None:
        return NOTHING
    limits = "" if span.lower is None or span.upper is None else f" [{fixed(span.lower)}, {fixed(span.upper)}]"
    return f"{signed(span.mean)}{limits}"


def drop_of(report: Json, row: Json, class_name: str | None = None) -> float | None:
    """How much Dice was lost since the baseline under torch: of one class, or of the mean over classes.

    It is the paired drop where the row has one; a baseline has none, and shows the difference of its means.
    """
    paired = _paired(row, class_name, "drop")
    before, after = (class_score(each, class_name, "dice") for each in (reference(report["rows"]), row))
    return paired if paired is not None or before is None or after is None else before - after


def upper_of(row: Json, class_name: str | None = None) -> float | None:
    """The upper 95 % limit of the drop of one class, or of the mean over classes."""
    return _paired(row, class_name, "upper")


def collapsed_of(report: Json, row: Json, class_name: str) -> float | None:
    """How many patients (or cases, where patients are not known) lose more than COLLAPSE."""
    paired, cases = _paired(row, class_name, "collapsed"), pairs_of(report, row, class_name)
    return paired if paired is not None or not cases else float(collapsed_pairs(cases))


def _paired(row: Json, class_name: str | None, key: str) -> float | None:
    drops = (row.get("dice_drop") or {}) if row["status"] == "measured" else {}
    return number((drops.get(class_name or "mean") or {}).get(key))


def pairs_of(report: Json, row: Json, class_name: str) -> Pairs:
    """Dice of the baseline under torch and of `row`, for each case that the paired drop counts."""
    return pairs_between(scores_of(reference(report["rows"])), scores_of(row), class_name)


def pairs_between(was: Json, now: Json, class_name: str) -> Pairs:
    """Dice before and after, from two rows' scores, for each case that a paired drop counts."""
    before, after = (each.get("per_case") or {} for each in (was, now))
    cases = [case for case in after if case in before]
    was_N, now_N = (np.asarray([_dice(arm[case], class_name) for case in cases]) for arm in (before, after))
    was_N, now_N = pairs(was_N, now_N, "dice")
    defined_N = ~np.isnan(was_N)
    return list(zip(was_N[defined_N].tolist(), now_N[defined_N].tolist(), strict=True))


def _dice(case: Json | None, class_name: str) -> float:
    """The Dice of a class in a case; NaN where it is undefined."""
    dice = number(((case or {}).get(class_name) or {}).get("dice"))
    return math.nan if dice is None else dice


def collapsed_pairs(pairs: Pairs) -> int:
    """How many cases lose more than `COLLAPSE`."""
    return collapsed(np.asarray([before - after for before, after in pairs]))
