"""How the answers agree with the truth beside overlap: how large things are, and which class was taken for which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compress.report.derived import compared, recorded
from compress.report.derived.numbers import NOTHING, amount, large, number
from compress.report.derived.recorded import Json, scores_of

MOST_CLASSES = 12
"""A table of more columns is read by nobody; report.json has all."""
WITHIN = 1.96
"""Standard deviations around the mean that hold 95 % of what is normally distributed."""

SIZE_HEAD = ("class", "answered by", "cases", "mean size", "bias", "bias (%)", "95 % limits of agreement")
SIZE_ALIGN = "llrrrrr"
SIZE_NOTE = (
    "Sizes in test cases that have the class in truth or answer. Bias: mean of the answered size less the true one; "
    "between its limits lie 95 % of such differences if they are normally distributed (Bland & Altman 1986)."
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a class is in each case that has it in truth or answer."""

    title: str
    """Which artifact answered."""
    pairs: Sequence[tuple[float, float]]
    """True and answered."""

    @property
    def bias(self) -> float:
        return float(np.mean([answered - true for true, answered in self.pairs]))

    @property
    def limits(self) -> tuple[float, float] | None:
        """Within which 95 % of the differences lie; None for a single case."""
        if len(self.pairs) < 2:
            return None
        spread = WITHIN * float(np.std([answered - true for true, answered in self.pairs], ddof=1))
        return self.bias - spread, self.bias + spread


def sizes(report: Json, class_name: str) -> list[Sizes]:
    """Of the baseline that drops are taken from, then of each artifact of the last step; none in older reports."""
    return [each for title, row in _arms(report) if (each := _sizes(title, row, class_name)).pairs]


def _sizes(title: str, row: Json, class_name: str) -> Sizes:
    told = [(case.get(class_name) or {}).get("sizes") or () for case in (scores_of(row).get("per_case") or {}).values()]
    known = [tuple(map(number, pair)) for pair in told if len(pair) == 2]
    pairs = [(true, answered) for true, answered in known if true is not None and answered is not None]
    return Sizes(title=title, pairs=[pair for pair in pairs if any(pair)])


def size_rows(report: Json) -> list[tuple[str, ...]]:
    """One for each class and artifact."""
    unit = unit_of(report)
    return [
        (name, each.title, str(len(each.pairs)), *_in_words(each, unit))
        for name in recorded.class_names(report)
        for each in sizes(report, name)
    ]


def unit_of(report: Json) -> str:
    """What sizes are counted in: mm², mm³, pixels."""
    return str(report["data"].get("sizes_in") or "pixels")


def _in_words(sizes: Sizes, unit: str) -> Iterator[str]:
    mean = float(np.mean([true for true, _ in sizes.pairs]))
    yield f"{amount(mean)} {unit}"
    yield f"{_signed(sizes.bias)} {unit}"
    yield f"{100 * sizes.bias / mean:+.1f}" if mean else NOTHING
    yield NOTHING if sizes.limits is None else f"{_signed(sizes.limits[0])} to {_signed(sizes.limits[1])}"


def _signed(value: float) -> str:
    return ("-" if value < 0 else "+") + amount(abs(value))


CONFUSION_NOTE = (
    "Of the pixels of each true class (rows) the share in % that was answered as each class, over all test cases; the "
    "diagonal is right. Pixels that count nowhere are left out."
)


def confusion_head(report: Json) -> tuple[str, ...]:
    """The answered classes."""
    return ("answered by", "true class", "pixels", *(report["data"].get("classes") or ()))


def confusion_rows(report: Json) -> list[tuple[str, ...]]:
    """One for each true class of each artifact; none in older reports, and of more classes than a page is wide."""
    classes = list(report["data"].get("classes") or ())
    if len(classes) > MOST_CLASSES:
        return []
    rows = []
    for title, row in _arms(report):
        table = scores_of(row).get("confusion") or ()
        if len(table) != len(classes):
            continue
        for name, counts in zip(classes, table, strict=True):
            pixels = sum(counts)
            shares = (f"{100 * count / pixels:.2f}" if pixels else NOTHING for count in counts)
            rows.append((title, name, large(pixels), *shares))
    return rows


def _arms(report: Json) -> Iterator[tuple[str, Json]]:
    """The baseline that drops are taken from, and what became of it in the last step."""
    before = recorded.reference(report["rows"])
    if before:
        yield f"baseline on {before['backend']}", before
    for line in compared.last_step(report):
        if line.measured and line.row is not before and scores_of(line.row):
            yield line.title, line.row
