"""Scores apart by the values of columns of split.csv: a mean over all hides a device on which the network fails."""

from __future__ import annotations

from collections.abc import Iterator

from compress.gates.judging.paired_drop import paired_drop
from compress.measure.segmentation import FEWEST, Scores
from compress.report.derived import compared, recorded
from compress.report.derived.drops import Span, between
from compress.report.derived.numbers import fixed, number
from compress.report.derived.recorded import Json, scores_of

HEAD = ("column", "value", "artifact", "cases", "Dice before", "Dice after", "lost")
ALIGN = "lllrrrr"
NOTE = (
    "By the columns of split.csv that the recipe's scoring names. Lost: mean paired drop in Dice [one-sided 95 % "
    f"limits], + is worse; cases of one patient count as one. Under {FEWEST} of them a mean says little."
)


def rows(report: Json) -> list[tuple[str, ...]]:
    """One for each value of each column and each artifact of the last step."""
    told: dict[str, dict[str, list[str]]] = report["data"].get("subgroups") or {}
    return [
        row
        for column, values in told.items()
        for value, cases in values.items()
        for row in _of(report, column, value, cases)
    ]


def _of(report: Json, column: str, value: str, cases: list[str]) -> Iterator[tuple[str, ...]]:
    before = scores_of(recorded.reference(report["rows"]))
    for line in compared.last_step(report):
        after = scores_of(line.row)
        if not before or not after or line.step == "baseline":
            continue
        was, now = (Scores.from_dict(dict(each)).among(cases) for each in (before, after))
        was, now = was.among(now.cases), now.among(was.cases)
        drop = paired_drop(was, now, None, "dice")
        yield (
            *(column, value, line.title, f"{drop.n}"),
            *(fixed(number(each.mean("dice"))) for each in (was, now)),
            between(None if not drop.n else Span(mean=drop.mean, lower=number(drop.lower), upper=number(drop.upper))),
        )
