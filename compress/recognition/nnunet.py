"""A results folder of nnU-Net and a folder of its raw data as a recipe: the plans say all that is asked elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from compress.data.planned.cases import Folder, Held
from compress.data.planned.plan import Plan, plan_of
from compress.data.planned.results import Fold, Results, results_in
from compress.data.planned.rules import Step, pickles_beside, rules_beside, steps_of
from compress.errors import DataError

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One fold of a training, and what its recipe says."""

    results: Results
    plan: Plan
    fold: Fold
    checkpoint: str
    rules: tuple[Path, list[Step]] | None
    """Where nnU-Net keeps the rules of its post-processing, and what they are here."""
    counts: str
    """How many cases each role has."""
    calibration: int

    def as_yaml(self, results: str, root: str, seed: int) -> str:
        """The file's text.

        Args:
            results, root: where the recipe finds the folders.
        """
        name = re.sub(r"[^\w.]+", "-", f"{self.results.path.parent.name}-{self.results.configuration}-int8").lower()
        lines = [
            "# Written by compress init from what nnU-Net's plans say. Look first, then run:",
            "#   compress check THIS FILE",
            "#   compress run THIS FILE",
            f"name: {name}  # of the run's folder: runs/{name}",
            f"seed: {seed}",
            "network:",
            "  nnunet:",
            f"    results: {json.dumps(results)}",
            f"    fold: {self.fold}",
            *([] if self.checkpoint == FINAL else [f"    checkpoint: {self.checkpoint}"]),
            f"# Classes: {', '.join(self.plan.classes)}; tiles of {list(self.plan.patch)}; {self.counts}.",
            "data:",
            "  nnunet:",
            f"    root: {json.dumps(root)}",
            f"    calibration: {self.calibration}  # train cases that give int8 its ranges",
            "    # mirror: []  # as nnUNetv2_predict --disable_tta: a fraction of the time, and a little less Dice",
            *self._postprocess(),
            "passes:",
            "  - int8",
            "devices: [cpu]",
            "gates:",
            "  # The Dice that each class may lose, by a test of non-inferiority: it needs 30 test cases or more.",
            "  - dice_drop: {at_most: 0.01}",
            "  - smaller: {at_least: 3}",
        ]
        return "\n".join(lines) + "\n"

    def _postprocess(self) -> list[str]:
        if self.rules is None or not self.rules[1]:
            return []
        rules = ((word, options) for step in self.rules[1] for word, options in step.items())
        steps = [f"  - {word}{f': {_flow(options)}' if options else ''}" for word, options in rules]
        return [f"# The rules in {self.rules[0].parent.name}/{self.rules[0].name}.", "postprocess:", *steps]


def training_in(path: Path, root: Path, calibration: int = 32) -> Training:
    """The first fold of a results folder that is trained, or that one whose folder is given.

    Raises:
        DataError: if no fold is trained, the plans ask for what is not served, or the folder has no cases.
    """
    folder = path.parent if path.name.startswith("fold_") else path
    results = results_in(folder)
    plan = plan_of(results)
    given = path.name if path.name.startswith("fold_") else "fold_*"
    there = results.path.glob(f"{given}/*.pth")
    trained = sorted(there, key=lambda each: (each.parent.name, each.name != FINAL, each.name))
    if not trained:
        raise DataError(f"{path}: holds no checkpoint (fold_0/{FINAL})")
    number = trained[0].parent.name.removeprefix("fold_")
    fold: Fold = int(number) if number.isdecimal() else "all"
    held = Held(results=results, fold=fold, splits=None)
    cases = Folder(root=root, ending=plan.ending, table=None, held=held).cases(0)
    found = rules_beside(results)
    return Training(
        results=results,
        plan=plan,
        fold=fold,
        checkpoint=trained[0].name,
        rules=None if found is None else (found, steps_of(found, plan.classes)),
        counts=", ".join(f"{len(some)} {role}" for role, some in cases.items() if some),
        calibration=min(calibration, max(1, len(cases["train"]) // 2)),
    )


def told(training: Training) -> list[str]:
    """What was found, a sentence each."""
    plan, folder = training.plan, training.results.path
    rules = training.rules
    pickled = pickles_beside(training.results)
    return [
        f"network: nnU-Net's {plan.arch['class']}, {plan.channels} channels in, {len(plan.classes)} classes out "
        f"({folder.name}, fold {training.fold}, {training.checkpoint})",
        f"data: {training.counts}; {plan.scale}",
        *([f"postprocess: {len(rules[1])} rules of {rules[0]}"] if rules else []),
        *(
            [f"postprocess: {pickled[0]} is a pickle and is not opened; nnU-Net writes postprocessing.json beside it"]
            if pickled and not rules
            else []
        ),
    ]


def _flow(options: dict[str, list[str]]) -> str:
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in options.items()) + "}"
