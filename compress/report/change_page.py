"""Two runs side by side, in one HTML file that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.style

from compress.gates.judging.paired_drop import COLLAPSE, case_drops
from compress.gates.judging.two_runs import Pair
from compress.measure.segmentation import Scores
from compress.report.derived import numbers, recorded, verdicts
from compress.report.drawing.look import STYLE
from compress.report.drawing.scatter import of_pairs
from compress.report.pages import page
from compress.report.tables import Table, gate_table

MOST_CASES = 20
"""In the table of those that changed most."""


def to_html(record: Mapping[str, Any], table: Table, notes: Sequence[str], pairs: Sequence[Pair]) -> str:
    """The page.

    Args:
        record: the change's report, with the verdicts on the change as its gates.
        table: before and after, an artifact a row.
        notes: what else the runs differ in.
        pairs: the artifacts that both runs have.
    """
    scored = [pair for pair in pairs if pair.before.scores is not None and pair.after.scores is not None]
    with matplotlib.style.context(["default", STYLE]):
        drawn = [(title_of(pair), pair.before.scores or {}, pair.after.scores or {}) for pair in scored]
        plot = of_pairs(recorded.class_names(record), drawn) if drawn else None
    return page("change.html.j2", numbers=numbers, collapse=COLLAPSE).render(
        record=record,
        verdict=verdicts.conclusion(record),
        table=table,
        notes=notes,
        gates=gate_table(record),
        cases=case_table(scored),
        plot=plot,
    )


def case_table(pairs: Sequence[Pair]) -> Table:
    """The cases that changed most, either way."""
    found = sorted(
        ((drop, case, pair) for pair in pairs for case, drop in _drops(pair)), key=lambda each: -abs(each[0])
    )
    rows = [(case, title_of(pair), numbers.signed(drop)) for drop, case, pair in found[:MOST_CASES]]
    note = "Dice lost, the mean of a case's classes; + is worse."
    return Table(title="Cases that changed most", head=("case", "on", "lost"), align="llr", rows=rows, note=note)


def _drops(pair: Pair) -> Iterator[tuple[str, float]]:
    was, now = (Scores.from_dict(dict(row.scores or {})) for row in (pair.before, pair.after))
    was, now = was.among(now.cases), now.among(was.cases)
    for case, drop in zip(was.cases, case_drops(was, now, None, "dice").tolist(), strict=True):
        if not math.isnan(drop) and drop != 0:
            yield case, drop


def title_of(pair: Pair) -> str:
    """Which artifact it is."""
    return f"{pair.after.step} on {pair.after.backend} ({pair.after.device})"
