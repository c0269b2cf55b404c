"""The test cases that an artifact lost most on, to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.data.dataset.cases import MaskArray
from compress.measure.row import Row
from compress.pipeline.build import Build
from compress.report.report import Overlay
from compress.task import Task
from export.registry import find_backend


def worst_cases(builds: Sequence[Build], rows: Sequence[Row], task: Task, most: int = 6) -> list[Overlay]:
    """The test cases that lost the most Dice, from the baseline to that artifact of the last step which lost most."""
    found = lost_most(rows)
    if found is None:
        return []
    before_row, after_row = found
    by_name = {build.name: build for build in builds}
    before, after = (by_name[f"{row.step}-{row.backend}-{row.device}"] for row in found)
    scored = [case for case in task.data.cases["test"] if case.name in (after_row.scores or {})["per_case"]]
    chosen = sorted(scored, key=lambda case: (-_loss(before_row, after_row, case.name), case.name))[:most]
    assert before.artifact is not None and after.artifact is not None
    overlays = []
    with before.deployment.open().open(before.artifact) as was, after.deployment.open().open(after.artifact) as now:
        for case in chosen:
            image, truth = task.shown(case)
            seen = (image, truth, task.fitted_labels(was, case), task.fitted_labels(now, case))
            flat, place = (seen, None) if truth.ndim == 2 else _slice_of_most_error(*seen, task.data.ignore)
            overlays.append(
                Overlay(
                    case=case.name,
                    place=place,
                    image_HWC=flat[0],
                    truth_HW=flat[1],
                    before_HW=flat[2],
                    after_HW=flat[3],
                    dice_before=_dice(before_row, case.name),
                    dice_after=_dice(after_row, case.name),
                    after=f"{after_row.step} on {after_row.backend} ({after_row.device})",
                )
            )
    return overlays


def lost_most(rows: Sequence[Row]) -> tuple[Row, Row] | None:
    """The baseline that drops are taken from, and the measured artifact of the last step whose mean Dice is farthest
    below it (the first of several); None where either was not measured.
    """
    ran = [row for row in rows if row.status == "measured" and row.scores is not None]
    befores = sorted(
        (row for row in ran if row.step == "baseline"), key=lambda row: not find_backend(row.backend).runs_modules
    )
    afters = [row for row in ran if row.step == rows[-1].step]
    if not befores or not afters:
        return None
    before = befores[0]

    def loss(row: Row) -> float:
        assert row.scores is not None
        return sum(_loss(before, row, case) for case in row.scores["per_case"])

    return before, max(afters, key=loss)


def _slice_of_most_error(
    image_DHWC: MaskArray, truth_DHW: MaskArray, before_DHW: MaskArray, after_DHW: MaskArray, ignore: int | None
) -> tuple[tuple[MaskArray, MaskArray, MaskArray, MaskArray], str]:
    """The four at the depth where the answer after is wrong most, or at the middle if nowhere; and which that is."""
    wrong_D = ((after_DHW != truth_DHW) & (truth_DHW != ignore)).sum((1, 2))
    depth = int(wrong_D.argmax()) if wrong_D.any() else len(wrong_D) // 2
    flat = (image_DHWC[depth], truth_DHW[depth], before_DHW[depth], after_DHW[depth])
    return flat, f"slice {depth + 1} of {len(wrong_D)}"


def _dice(row: Row, case: str) -> float | None:
    """Mean Dice of one case over the classes it has."""
    assert row.scores is not None
    per_class = row.scores["per_case"][case]
    values = [scores["dice"] for name, scores in per_class.items() if name != "patient" and scores["dice"] is not None]
    return float(np.mean(values)) if values else None


def _loss(before: Row, after: Row, case: str) -> float:
    was, now = _dice(before, case), _dice(after, case)
    return (1.0 if was is None else was) - (1.0 if now is None else now)
