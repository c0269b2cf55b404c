"""What post-processing is worth: the baseline's scores with and without it.

    python -m benchmarks.postprocess recipes/nerve_unet_int8.yaml <data> recipes/hippocampus_unet3d_int8.yaml <data>

Each network answers each test case once for each way, in torch; gains are paired over test cases.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.gates.judging.paired_drop import paired_drop
from compress.measure.segmentation import Scores, scores_of
from compress.postprocess.applying.chain import Postprocess
from compress.postprocess.fill_holes import FillHoles
from compress.postprocess.largest_component import LargestComponent
from compress.postprocess.remove_small import RemoveSmall
from compress.postprocess.smooth import Smooth
from compress.postprocess.threshold import Threshold
from compress.recipe import load
from compress.task import Task
from export.backends.torch import infer_from_module

WAYS: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "largest_component": (("largest_component", LargestComponent()),),
    "fill_holes": (("fill_holes", FillHoles()),),
    "remove_small: {under_px: 200}": (("remove_small", RemoveSmall(under_px=200)),),
    "smooth: {sigma_px: 1}": (("smooth", Smooth(sigma_px=1)),),
    "threshold: {at: 0.6}": (("threshold", Threshold(at=0.6)),),
    "threshold: {at: 0.8}": (("threshold", Threshold(at=0.8)),),
}


def main(arguments: list[str]) -> None:
    """A row for each recipe, way and class."""
    print("| recipe | postprocess | class | Dice without | with | gain (one-sided 95 % limits) | HD95 without | with |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe, data in zip(arguments[::2], arguments[1::2], strict=True):
        task = load(Path(recipe), Path(data)).task()
        before = scored(task, ())
        for way, steps in WAYS.items():
            after = scored(task, steps)
            for name in before.class_names:
                gain = paired_drop(after, before, name, "dice")
                dice = [f"{scores.class_mean(name, 'dice'):.4f}" for scores in (before, after)]
                limits = f"{gain.mean:+.4f} ({gain.lower:+.4f}, {gain.upper:+.4f})"
                far = [f"{scores.class_mean(name, 'hd95'):.2f} {task.data.reader.unit}" for scores in (before, after)]
                print(f"| {' | '.join((Path(recipe).stem, f'`{way}`', name, *dice, limits, *far))} |", flush=True)


def scored(task: Task, steps: tuple[tuple[str, Any], ...]) -> Scores:
    """The baseline's scores with these steps between the network and its labels."""
    chain = Postprocess(steps=steps, class_names=task.data.class_names)
    one, cases = replace(task, postprocess=chain), task.data.cases["test"]
    infer = infer_from_module(task.net)
    names = [(case.name, case.unit) for case in cases]
    return scores_of(names, [one.score(infer, case) for case in cases], task.data.class_names[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
