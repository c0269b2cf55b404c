"""Layers that bear no coarser step than 8 bits allow, and the same network with more layers in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from compress.editing.precisions.sensitivity import LOOKED_AT, dice_of, lost, percent, squared_error
from compress.measure.segmentation import surely_above_zero
from compress.progress import bar
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import find_backend, words

if TYPE_CHECKING:
    from compress.task import Task

SUSPECT = 2.0
"""Coarser steps that multiply the squared error of the logits by more are tried out on Dice."""
COSTS = 0.002
"""Dice that coarser steps may take before layers keep their 8 bits out of their reach, in float."""
FEWEST = 8
"""Cases under which no drop is told from chance."""


def on_cpus() -> list[Rules]:
    """Each way in which a runtime of CPUs wants integers placed; all are simulated, and the worst of them decides."""
    kinds = [find_backend(word) for word in words("export.backends")]
    return list(dict.fromkeys(kind.rules for kind in kinds if kind.rules is not None and "cpu" in kind.runs_on))


def not_coarser(quantized: Quantized, task: Task, word: str) -> tuple[str, ...]:
    """The layers that stay in float rather than get the coarser steps with which sums fit 16 bits on every CPU.

    Coarser steps are nearly always free (export/quantization/saturation.py). Where they disturb the logits,
    Dice decides, of the calibration cases: no pass has trained on them. `word` is the pass's, in whose name it is told.
    """
    safe = find_backend("onnxruntime").rules
    assert safe is not None
    eight = replace(safe, pairs_in_16_bits=False)
    coarser = quantized.coarser(safe)
    if not coarser:
        task.note(f"{word}: no sum of two products can leave 16 bits: every CPU answers alike")
        return ()
    cases = task.data.cases["calibration"]
    images = [torch.from_numpy(image) for image in task.data.images(cases[: LOOKED_AT // 2])]
    with torch.inference_mode():
        wanted = [quantized.graph(image) for image in images]
        exact, rounded = (squared_error(quantized.simulated(rules), images, wanted) for rules in (eight, safe))
    ratio = rounded / max(exact, 1e-30)
    done = (
        f"{word}: {sum(coarser.values())} output channels in {len(coarser)} layers have coarser steps than 8 bits "
        f"allow, so that every CPU answers alike; the logits' squared error is {ratio:.2f} times that of 8 bits"
    )
    if ratio <= SUSPECT:
        task.note(done)
        return ()
    before_NK = dice_of(quantized.simulated(eight), task, "calibration")

    def with_these(kept: Sequence[str]) -> np.ndarray:
        return dice_of(with_exact(quantized, kept).simulated(safe), task, "calibration")

    all_coarser_NK = with_these(())
    whole = lost(before_NK, all_coarser_NK, word)
    if whole <= COSTS or not _sure(before_NK, all_coarser_NK):
        task.note(f"{done}, and {percent(max(whole, 0.0))} of Dice is lost by it on {len(before_NK)} calibration cases")
        return ()
    with torch.inference_mode():
        errors = {
            layer: squared_error(with_exact(quantized, [layer]).simulated(safe), images, wanted)
            for layer in bar(list(coarser), "looking for layers that need 8 bits", len(coarser))
        }
    ranked = sorted(coarser, key=errors.__getitem__)
    kept = ranked[: _fewest(lambda few: lost(before_NK, with_these(ranked[:few]), word) <= COSTS, len(ranked))]
    task.note(
        f"{done}, and {percent(whole)} of Dice would be lost by it on {len(before_NK)} calibration cases: "
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
    given = quantized.assignment
    return quantized.changed(assignment=replace(given, exact=(*given.exact, *exact)))


def with_float(quantized: Quantized, kept: Sequence[str]) -> Quantized:
    """The same network with more layers in float."""
    given = quantized.assignment
    return quantized.changed(assignment=replace(given, keep_float=(*given.keep_float, *kept)))


def _sure(before_NK: np.ndarray, after_NK: np.ndarray) -> bool:
    """Whether some class loses on average by more than chance: one-sided, 95 %, by Student's t over the cases."""
    for drops in (before_NK - after_NK).T:
        known = drops[np.isfinite(drops)]
        if len(known) >= FEWEST and surely_above_zero(known):
            return True
    return False
