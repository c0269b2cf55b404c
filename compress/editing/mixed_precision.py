"""Mixed precision: which layers of a quantized network go back to float so that its Dice holds.

The layers whose rounding alone disturbs the logits most go first (the order of Dong et al. 2019, HAWQ, arXiv
1905.03696, with the measured error in the place of the Hessian's estimate); how many, is found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import PassError
from compress.measure.segmentation import DICE, surely_above_zero
from compress.progress import bar
from export.backends.torch import infer_from_module
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import find_backend, words

if TYPE_CHECKING:
    from compress.data.dataset.cases import Role
    from compress.task import Task

LOOKED_AT = 4
"""Calibration cases on which single layers are compared."""
SUSPECT = 2.0
"""Coarser steps that multiply the squared error of the logits by more are tried out on Dice."""
COSTS = 0.002
"""Dice that coarser steps may take before layers keep their 8 bits out of their reach, in float."""
FEWEST = 8
"""Cases under which no drop is told from chance."""


def in_float(quantized: Quantized, task: Task, max_drop: float) -> tuple[str, ...]:
    """The layers to keep in float, beside those that are already, so that Dice falls by `max_drop` at most.

    Args:
        max_drop: mean over the validation cases of the Dice that a class loses against the float network; the class
            that loses most decides.

    Raises:
        PassError: without validation cases, or if only an all-float network holds.
    """
    if not task.data.cases["val"]:
        raise PassError(
            "int8: max_drop is measured on validation cases and there are none: give cases the split 'val', set data "
            "val above 0, or leave max_drop out"
        )
    rules = on_cpus()
    before_NK = _dice(quantized.graph, task)

    def drop(kept: Sequence[str]) -> float:
        tried = with_float(quantized, kept)
        return max(_lost(before_NK, _dice(tried.placed(each), task)) for each in rules)

    whole = drop(())
    if whole <= max_drop:
        task.note(
            f"int8: {_percent(whole)} of Dice lost on {len(before_NK)} validation cases with all layers in integers"
        )
        return ()
    ranked = _most_disturbing(quantized, rules[0], task)
    if drop(ranked[:-1]) > max_drop:
        raise PassError(
            f"int8: Dice falls by {whole:.4f} on the validation cases, and by over max_drop ({max_drop:g}) even with "
            f"{len(ranked) - 1} of {len(ranked)} layers in float; train the network further, or allow more"
        )
    enough = _fewest(lambda few: drop(ranked[:few]) <= max_drop, len(ranked) - 1)
    kept = tuple(ranked[:enough])
    task.note(
        f"int8: with all layers in integers {_percent(whole)} of Dice is lost on {len(before_NK)} validation cases; "
        f"with {enough} of {len(ranked)} layers in float, {_percent(drop(kept))}: {', '.join(kept)}"
    )
    return kept


def on_cpus() -> list[Rules]:
    """Each way in which a runtime of CPUs wants integers placed; all are simulated, and the worst of them decides."""
    kinds = [find_backend(word) for word in words("export.backends")]
    return list(dict.fromkeys(kind.rules for kind in kinds if kind.rules is not None and "cpu" in kind.runs_on))


def not_coarser(quantized: Quantized, task: Task) -> tuple[str, ...]:
    """The layers that stay in float rather than get the coarser steps with which sums fit 16 bits on every CPU.

    Coarser steps are nearly always free (export/quantization/saturation.py). Where they disturb the logits,
    Dice decides, of the calibration cases: no pass has trained on them.
    """
    safe = find_backend("onnxruntime").rules
    assert safe is not None
    eight = replace(safe, pairs_in_16_bits=False)
    coarser = quantized.coarser(safe)
    if not coarser:
        task.note("int8: no sum of two products can leave 16 bits: every CPU answers alike")
        return ()
    cases = task.data.cases["calibration"]
    images = [torch.from_numpy(image) for image in task.data.images(cases[: LOOKED_AT // 2])]
    with torch.inference_mode():
        wanted = [quantized.graph(image) for image in images]
        exact, rounded = (_error(quantized.placed(rules), images, wanted) for rules in (eight, safe))
    ratio = rounded / max(exact, 1e-30)
    done = (
        f"int8: {sum(coarser.values())} output channels in {len(coarser)} layers have coarser steps than 8 bits allow, "
        f"so that every CPU answers alike; the logits' squared error is {ratio:.2f} times that of 8 bits"
    )
    if ratio <= SUSPECT:
        task.note(done)
        return ()
    before_NK = _dice(quantized.placed(eight), task, "calibration")

    def with_these(kept: Sequence[str]) -> np.ndarray:
        return _dice(with_exact(quantized, kept).placed(safe), task, "calibration")

    all_coarser_NK = with_these(())
    whole = _lost(before_NK, all_coarser_NK)
    if whole <= COSTS or not _sure(before_NK, all_coarser_NK):
        task.note(
            f"{done}, and {_percent(max(whole, 0.0))} of Dice is lost by it on {len(before_NK)} calibration cases"
        )
        return ()
    with torch.inference_mode():
        errors = {
            layer: _error(with_exact(quantized, [layer]).placed(safe), images, wanted)
            for layer in bar(list(coarser), "looking for layers that need 8 bits", len(coarser))
        }
    ranked = sorted(coarser, key=errors.__getitem__)
    kept = ranked[: _fewest(lambda few: _lost(before_NK, with_these(ranked[:few])) <= COSTS, len(ranked))]
    task.note(
        f"{done}, and {_percent(whole)} of Dice would be lost by it on {len(before_NK)} calibration cases: "
        f"{', '.join(kept)} stay in float instead, where the CPU is not known to have VNNI"
    )
    return tuple(kept)


def _fewest(enough: Callable[[int], bool], most: int) -> int:
    """The smallest number that is enough, by bisection; `most` is."""
    few = 0
    while most - few > 1:
        middle = (most + few) // 2
        most, few = (middle, few) if enough(middle) else (most, middle)
    return most


def with_exact(quantized: Quantized, exact: Sequence[str]) -> Quantized:
    """The same network with more layers in float wherever sums must fit 16 bits."""
    return quantized.changed(exact=(*quantized.exact, *exact))


def with_float(quantized: Quantized, kept: Sequence[str]) -> Quantized:
    """The same network with more layers in float."""
    return quantized.changed(keep_float=(*quantized.keep_float, *kept))


def _dice(net: nn.Module, task: Task, role: Role = "val") -> np.ndarray:
    """The Dice of every case of a role and class; NaN where there is nothing of the class."""
    infer, cases = infer_from_module(net), task.data.cases[role]
    tried = bar(cases, "int8: Dice of a choice of layers", len(cases))
    return np.stack([task.score(infer, case, surfaces=False)[0][:, DICE] for case in tried])


def _lost(before_NK: np.ndarray, after_NK: np.ndarray) -> float:
    """The mean drop of the class that loses most, over the cases in which both have it."""
    drops = [lost[np.isfinite(lost)] for lost in (before_NK - after_NK).T]
    means = [float(lost.mean()) for lost in drops if lost.size]
    if not means:
        raise PassError("int8: no case holds anything of any class, so that no drop can be measured")
    return max(means)


@torch.inference_mode()
def _most_disturbing(quantized: Quantized, rules: Rules, task: Task) -> list[str]:
    """The layers, those first that disturb the logits most when they alone are in integers."""
    layers = [name for name in dict.fromkeys(quantized.layer_names()) if name not in quantized.keep_float]
    cases = task.data.cases["calibration"][:LOOKED_AT]
    images = [torch.from_numpy(image) for image in task.data.images(cases)]
    wanted = [quantized.graph(image) for image in images]
    errors: Mapping[str, float] = {
        layer: _error(_alone(quantized, layer, layers, rules), images, wanted)
        for layer in bar(layers, "looking for layers that need float", len(layers))
    }
    return sorted(layers, key=lambda layer: -errors[layer])


def _alone(quantized: Quantized, layer: str, layers: Sequence[str], rules: Rules) -> Callable[[Tensor], Tensor]:
    others = [other for other in layers if other != layer]
    return with_float(quantized, others).placed(rules)


def _error(net: Callable[[Tensor], Tensor], images: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    return sum(float((net(image) - logits).square().mean()) for image, logits in zip(images, wanted, strict=True))


def _sure(before_NK: np.ndarray, after_NK: np.ndarray) -> bool:
    """Whether some class loses on average by more than chance: one-sided, 95 %, by Student's t over the cases."""
    for lost in (before_NK - after_NK).T:
        known = lost[np.isfinite(lost)]
        if len(known) >= FEWEST and surely_above_zero(known):
            return True
    return False


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
