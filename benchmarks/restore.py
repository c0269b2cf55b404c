"""What it is worth to bring probabilities, rather than labels, back to the size of the image: the baseline's Dice.

    python -m benchmarks.restore recipes/nerve_unet_int8.yaml <data> recipes/polyp_unet16_edge.yaml <data>

Each network answers each test case once, in torch; its answer is brought back in both ways.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from compress.data.dataset.restore import Way
from compress.gates.judging.paired_drop import paired_drop
from compress.measure.segmentation import Scores, scores_of
from compress.recipe import load
from compress.task import Task
from export.backends.torch import infer_from_module

WAYS: tuple[Way, Way] = ("labels", "probabilities")


def main(arguments: list[str]) -> None:
    """A row for each recipe and class."""
    print("| recipe | class | cases | by labels | by probabilities | gain (one-sided 95 % limits) |")
    print("|---|---|---|---|---|---|")
    for recipe, data in zip(arguments[::2], arguments[1::2], strict=True):
        task = load(Path(recipe), Path(data)).task()
        labels, probabilities = (scored(task, way) for way in WAYS)
        for name in labels.class_names:
            gain = paired_drop(probabilities, labels, name, "dice")
            means = (scores.class_mean(name, "dice") for scores in (labels, probabilities))
            words = (Path(recipe).stem, name, str(gain.n), *(f"{mean:.4f}" for mean in means))
            print(f"| {' | '.join(words)} | {gain.mean:+.4f} ({gain.lower:+.4f}, {gain.upper:+.4f}) |", flush=True)


def scored(task: Task, way: Way) -> Scores:
    """The baseline's Dice, with answers brought back in this way; distances are left out."""
    data = replace(task.data, fit=replace(task.data.fit, restored_from=way))
    one, cases = replace(task, data=data), task.data.cases["test"]
    infer = infer_from_module(task.net)
    names, scored = (
        [(case.name, case.unit) for case in cases],
        [one.score(infer, case, surfaces=False) for case in cases],
    )
    return scores_of(names, scored, task.data.class_names[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
