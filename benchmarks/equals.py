"""How often each of two rules stops a change that lost nothing, and one that lost: `compare`'s limit, and a gate's.

    python -m benchmarks.equals

Two runs of a pull request are simulated: the same cases, two runtimes, one class, the Dice of the second run differing
from the first's by what each row says. Both rules judge the same pairs by the code that `compress compare` runs: the
limit `--drop 0.005`, and the gate `dice_drop: {at_most: 0.005}` of `--gates`. The result is written to
benchmarks/equals.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.gates.dice_drop import DiceDrop
from compress.gates.judging.change import Allowed, judge_change, judge_pairs
from compress.gates.judging.two_runs import Measured, paired
from compress.measure.row import Row
from compress.measure.segmentation import DICE, METRICS, Scores
from compress.report.report import exit_code

HERE = Path(__file__).parent
REPEATS = 200
MARGIN = 0.005
BACKENDS = ("onnxruntime", "openvino")
INTRO = (
    f"`python -m benchmarks.equals`: {REPEATS} simulated pull requests a row, two runtimes each, margin {MARGIN}.",
    "Exit codes in percent: 0 holds, 3 is inconclusive, 1 fails. *Limit* is `compress compare --drop`; *gate* is",
    "`dice_drop` of `--gates`, which fails as soon as the mean is past its margin. Spread is the standard deviation",
    "of a case's change in Dice.",
)
ONLY_DROPS = Allowed(drop=MARGIN, slower=None, larger=None)

Dice = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a pull request does to each case's Dice."""

    what: str
    cases: int
    spread: float
    """Standard deviation, over the cases, of what changes by chance."""
    loss: float = 0.0
    luck: float = 0.0
    """Standard deviation, over trainings, of what changes for every case alike."""


EQUALS = (
    Change(what="the same recipe run again: the same answers", cases=40, spread=0),
    Change(what="another calibration or kernel", cases=40, spread=0.004),
    *(Change(what="trained anew", cases=n, spread=0.04) for n in (40, 149, 730)),
    Change(what="trained anew, cases that differ much", cases=149, spread=0.10),
)
WORSE = (
    *(Change(what="another calibration, loses 0.01", cases=n, spread=0.004, loss=0.01) for n in (40, 149)),
    *(Change(what="trained anew, loses 0.01", cases=n, spread=0.04, loss=0.01) for n in (40, 149, 730)),
    *(Change(what="trained anew, loses 0.03", cases=n, spread=0.04, loss=0.03) for n in (40, 149)),
    Change(what="trained anew, lucky or not for every case (0.003)", cases=730, spread=0.04, luck=0.003),
)


def main() -> None:
    """Simulate every change, print the table and write it."""
    (HERE / "equals.md").write_text(text := "\n".join(page()) + "\n", encoding="utf-8")
    print(text)


def page() -> Iterator[str]:
    """The lines of benchmarks/equals.md."""
    yield "# Two rules for a change"
    yield ""
    yield from INTRO
    for title, changes in (("Nothing is lost: 1 is a false alarm", EQUALS), ("Something is lost", WORSE)):
        yield from table(title, changes)


def table(title: str, changes: Sequence[Change]) -> Iterator[str]:
    """One table, a change a row."""
    yield from ("", f"## {title}", "", "| change | cases | spread | limit: 0 | 3 | 1 | gate: 0 | 3 | 1 |")
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for change in changes:
        limit, gate = codes(change)
        shares = [f"{100 * of[code] / REPEATS:.3g}" for of in (limit, gate) for code in (0, 3, 1)]
        yield f"| {change.what} | {change.cases} | {change.spread:g} | {' | '.join(shares)} |"


def codes(change: Change, repeats: int = REPEATS) -> tuple[Counter[int], Counter[int]]:
    """How often a comparison ends with which exit code, by the limit and by the gate."""
    limit: Counter[int] = Counter()
    gate: Counter[int] = Counter()
    chance = np.random.default_rng(5)
    for _ in range(repeats):
        before, after = runs(change, chance)
        pairing = paired(before, after)
        limit[exit_code(judge_change(measured(before), measured(after), pairing, ONLY_DROPS))] += 1
        gate[exit_code(judge_pairs([("dice_drop", DiceDrop(at_most=MARGIN))], pairing))] += 1
    return limit, gate


def runs(change: Change, chance: np.random.Generator) -> tuple[list[Row], list[Row]]:
    """The last step's rows of the main branch's run and of the change's."""
    true = 0.6 + 0.3 * chance.random(change.cases)
    shift = change.loss + chance.normal(0, 1) * change.luck
    return rows(true for _ in BACKENDS), rows(
        np.clip(true - shift - chance.normal(0, 1, change.cases) * change.spread, 0, 1) for _ in BACKENDS
    )


def rows(dice: Iterator[Dice]) -> list[Row]:
    """A measured row for each runtime."""
    return [
        Row(
            step="01-int8",
            backend=backend,
            device="cpu",
            status="measured",
            params=1,
            macs=1,
            scores=scored(dice_N).as_dict(),
        )
        for backend, dice_N in zip(BACKENDS, dice, strict=True)
    ]


def scored(dice_N: Dice) -> Scores:
    """Scores of one class with this Dice for every case."""
    names = tuple(f"case {place}" for place in range(len(dice_N)))
    values_NKM = np.full((len(dice_N), 1, len(METRICS)), np.nan)
    values_NKM[:, 0, DICE] = dice_N
    return Scores(
        cases=names,
        units=names,
        class_names=("organ",),
        values_NKM=values_NKM,
        false_alarms=(0,),
        absent=(0,),
        sizes_NK2=np.full((len(dice_N), 1, 2), np.nan),
        pixels_CC=np.zeros((2, 2)),
    )


def measured(rows: Sequence[Row]) -> Measured:
    """A run of which nothing but its rows counts."""
    return Measured(rows=rows, host={}, versions={}, network={})


if __name__ == "__main__":
    main()
