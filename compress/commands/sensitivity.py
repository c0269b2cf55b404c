"""`compress sensitivity`: what each layer's pruning, and each layer's integers, cost in Dice on validation cases.

One thing is changed at a time and nothing recovers from it, in torch (integers are simulated in
float), so the numbers rank layers; what a whole recipe costs is measured on artifacts by `compress run`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress import progress
from compress.cache import Cache, claimed, key_of
from compress.data.dataset.cases import Case
from compress.editing.mixed_precision import with_float
from compress.editing.named_layers import tensor_of
from compress.editing.pruning.dependency.groups import Bundle
from compress.editing.pruning.removal import Cut, without
from compress.editing.pruning.trial import tried
from compress.errors import DataError, NotHere, PassError
from compress.gates.judging.paired_drop import paired_drop
from compress.measure.segmentation import Scores, scores_of
from compress.passes.int8 import Int8
from compress.pipeline.first_key import first_key
from compress.pipeline.log import logged
from compress.pipeline.stages import cost_in
from compress.postprocess.applying.chain import Postprocess
from compress.recipe import Recipe
from compress.task import Task
from export.backends.torch import infer_from_module
from export.capture import folded_graph
from export.errors import REFUSALS, first_line
from export.files import write_json
from export.graph import convolutions, layer_name
from export.quantization.quantized import Quantized

Log = Callable[[str], None]
Record = dict[str, Any]
RATIOS = (0.25, 0.5, 0.75)


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked."""

    ratios: tuple[float, ...] = RATIOS
    """Shares of each group's channels that are taken out."""
    cases: int | None = None
    """How many validation cases; None takes all."""
    int8: bool = True
    """Whether integers are asked about too."""


def sensitivity(recipe: Recipe, folder: Path, questions: Questions, say: Log = print) -> Record:
    """Answer them; what was measured before in `folder` is kept, so that it can be interrupted.

    Raises:
        DataError: if there are no validation cases, or fewer than asked for: test cases are never used.
        PassError: if there are no calibration cases to set the ranges of integers.
    """
    with claimed(folder, fresh=False), logged(folder, say) as log:
        # As passes see it: what ranks layers does not depend on the post-processing.
        task = replace(recipe.task(), postprocess=Postprocess())
        measure = _Measure(recipe, task, Cache(folder), questions)
        found = _asked(measure, task, questions)
        log(f"sensitivity: {len(measure.cases)} validation cases, mean foreground Dice {found['dice']:.4f}")
        return found


def write(found: Record, folder: Path) -> None:
    """Write sensitivity.json, .svg and .png."""
    from compress.report.sensitivity import draw

    draw(found, folder)
    write_json(folder / "sensitivity.json", found)


class _Measure:
    """Scores changed networks on the validation cases, keeping what is done."""

    def __init__(self, recipe: Recipe, task: Task, cache: Cache, questions: Questions) -> None:
        self.task, self.cache = task, cache
        self.cases = chosen(task, questions.cases)
        self.int8 = replace(
            next((step for word, step in recipe.passes if word == "int8" and isinstance(step, Int8)), Int8()),
            keep=(),
            max_drop=None,
        )
        self.key = key_of(first_key(recipe, task), [case.name for case in self.cases], self.int8)

    @cached_property
    def before(self) -> Scores:
        """The uncompressed network's."""
        made = self.cache.value("sensitivity/baseline", self.key, lambda: self._scores(self.task.net).as_dict())
        return Scores.from_dict(made)

    @cached_property
    def quantized(self) -> Quantized:
        """All layers in integers."""
        net = self.int8(self.task.net, self.task)
        assert isinstance(net, Quantized)
        return net

    def drop(self, name: str, make: Callable[[], nn.Module]) -> Record:
        """What a changed network loses; where it cannot be made or gives no answer, why."""

        def work() -> Record:
            try:
                net = make()
                after = self._scores(net)
            except (PassError, NotHere) as error:
                return {"drop": None, "lower": None, "upper": None, "reason": str(error)}
            # As in a report, where both arms have the same digits.
            drop = paired_drop(self.before, Scores.from_dict(after.as_dict()), None, "dice")
            numbers = {"drop": drop.mean, "lower": drop.lower, "upper": drop.upper}
            finite = {key: round(value, 6) if math.isfinite(value) else None for key, value in numbers.items()}
            cost = cost_in(net, self.task)
            return {**finite, "reason": None, "params": cost.params, "macs": cost.macs}

        # Scored first, since what is kept of a drop depends on it.
        assert self.before.cases
        return dict(self.cache.value(f"sensitivity/{name}", self.key, work))

    def _scores(self, net: nn.Module) -> Scores:
        infer = infer_from_module(net)
        scored = [self.task.score(infer, case, surfaces=False) for case in self.cases]
        names = [(case.name, case.unit) for case in self.cases]
        return scores_of(names, scored, self.task.data.class_names[1:])


def chosen(task: Task, most: int | None) -> list[Case]:
    """The validation cases to look at, drawn with the run's seed where not all are asked for."""
    cases = task.data.cases["val"]
    if not cases:
        raise DataError(
            f"{task.data.source}: there are no validation cases, and test cases choose nothing; give cases the split "
            "'val', or set data val above 0"
        )
    if most is None or most >= len(cases):
        if most is not None and most > len(cases):
            raise DataError(f"{task.data.source}: --cases is {most}, but there are only {len(cases)} validation cases")
        return list(cases)
    return [cases[place] for place in sorted(np.random.default_rng(task.seed).permutation(len(cases))[:most])]


def _asked(measure: _Measure, task: Task, questions: Questions) -> Record:
    bundles = tried(task.net, task.example)
    open_bundles = [bundle for bundle in bundles if bundle.group.prunable]
    closed = [bundle.group for bundle in bundles if not bundle.group.prunable]
    layers = list(dict.fromkeys(layer_name(node) for node in convolutions(folded_graph(task.net, task.example, ()))))
    total = 1 + len(open_bundles) * len(questions.ratios) + (1 + 2 * len(layers)) * questions.int8
    with progress.steps("measuring", total) as step:
        before = measure.before
        step()
        pruned = [_pruned(measure, task, bundle, ratio, step) for bundle in open_bundles for ratio in questions.ratios]
        integers = _integers(measure, layers, step) if questions.int8 else None
    return {
        "cases": len(measure.cases),
        "split": "val",
        "measured_in": "torch, nothing recovered; integers simulated in float",
        "dice": round(before.mean("dice"), 6),
        "prune": sorted(pruned, key=_worst_first),
        "kept": [{"layers": list(one.layers), "reason": one.reason} for one in closed],
        "int8": integers,
    }


def _pruned(measure: _Measure, task: Task, bundle: Bundle, ratio: float, step: Callable[[], None]) -> Record:
    """The drop when only this group loses the share of its channels that matters least by L2 norm."""
    group = bundle.group
    goes = min(max(1, round(ratio * len(bundle.units))), len(bundle.units) - 1)
    least = _norms(task.net, bundle).argsort(stable=True)[:goes].tolist()

    def make() -> nn.Module:
        net = without(task.net, [Cut(bundle=bundle, units=tuple(sorted(least)))])
        try:
            net(task.example)
        except REFUSALS as error:
            # What is tried before is half of the channels; a network's own Python may count on some of them.
            raise PassError(f"its code counts on more channels ({first_line(error, 120)})") from None
        return net

    found = measure.drop(f"prune-{group.layers[0]}-{ratio:g}", make)
    step()
    return {"layers": list(group.layers), "channels": group.channels, "ratio": ratio} | found


@torch.no_grad()
def _norms(net: nn.Module, bundle: Bundle) -> Tensor:
    """The L2 norm of each unit over every weight that it is in, as `prune` weighs it (Li et al. 2017)."""
    squares = torch.zeros(len(bundle.units))
    for number, unit in enumerate(bundle.units):
        for (name, axis), indices in unit.items():
            tensor = tensor_of(net, name)
            if tensor.dim() > 1:
                squares[number] += tensor.movedim(axis, 0)[list(indices)].float().square().sum()
    return squares.sqrt()


def _integers(measure: _Measure, layers: Sequence[str], step: Callable[[], None]) -> Record:
    """All layers in integers; each of them alone; and all but each."""
    whole = measure.drop("int8", lambda: with_float(measure.quantized, ()))
    step()
    found = []
    for layer in layers:
        others = tuple(other for other in layers if other != layer)
        alone = measure.drop(f"int8-alone-{layer}", lambda others=others: with_float(measure.quantized, others))  # type: ignore[misc]
        step()
        without = measure.drop(f"int8-but-{layer}", lambda layer=layer: with_float(measure.quantized, (layer,)))  # type: ignore[misc]
        step()
        back = None if whole["drop"] is None or without["drop"] is None else round(whole["drop"] - without["drop"], 6)
        found.append({"layer": layer, "alone": _numbers(alone), "all_but": _numbers(without), "won_back": back})
    return {"all": _numbers(whole), "layers": sorted(found, key=lambda one: _worst_first(one["alone"]))}


def _numbers(found: Mapping[str, Any]) -> Record:
    return {key: found[key] for key in ("drop", "lower", "upper", "reason")}


def _worst_first(found: Mapping[str, Any]) -> float:
    return -math.inf if found["drop"] is None else -found["drop"]
