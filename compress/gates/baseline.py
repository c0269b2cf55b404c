"""Whether the network that was trained, from which all drops are taken, can do its task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import verdict_on
from compress.gates.judging.beforehand import measured_nowhere, unknown_class
from compress.gates.judging.options import OPTIONS, OneClass
from compress.gates.judging.scene import Scene
from compress.gates.judging.score_drop import judged_classes, no_class
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_least, inconclusive
from compress.measure.row import Row
from compress.measure.segmentation import Scores


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Floor:
    """The least that a score may be."""

    at_least: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Baseline:
    """Holds where the baseline's own Dice is at least the bound, for every class; under torch where it was run."""

    title: ClassVar[str] = "baseline dice"
    reads_scores: ClassVar[bool] = True

    dice: Floor
    class_name: OneClass = None

    @property
    def bound(self) -> Bound:
        return at_least(self.dice.at_least)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        measured = [row for row in rows if row.step == "baseline" and row.scores is not None]
        row = next((row for row in measured if row.backend == "torch"), next(iter(measured), None))
        if row is None or row.scores is None:
            return [verdict_on(self, None, inconclusive("not measured: the baseline has no scores"))]
        scores = Scores.from_dict(dict(row.scores))
        names = judged_classes(scores, self.class_name)
        return [verdict_on(self, row, self._outcome(scores, name)) for name in names]

    def _outcome(self, scores: Scores, class_name: str) -> Outcome:
        if class_name not in scores.class_names:
            return no_class(scores, class_name)
        dice = scores.class_mean(class_name, "dice")
        found = inconclusive("no test case has this class") if math.isnan(dice) else self.bound.outcome(dice)
        return replace(found, class_name=class_name)

    def never_holds(self, scene: Scene) -> Iterator[str]:
        return unknown_class(self.class_name, scene)

    def cannot_hold(self, scene: Scene) -> Iterator[str]:
        return measured_nowhere(scene)
