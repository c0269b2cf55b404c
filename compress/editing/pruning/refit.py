"""What is left of each layer, fitted to what it answered before channels went (least_squares.py)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from compress.editing.activations import Images, agreement, calibration_cases, images
from compress.editing.least_squares import refit_pruned
from compress.editing.pruning.importance import CALIBRATION_CASES
from compress.editing.pruning.removal import Cut, positions

if TYPE_CHECKING:
    from compress.task import Task


def refit(net: nn.Module, whole: nn.Module, cuts: Sequence[Cut], task: Task) -> list[str]:
    """Fit a network, itself, to what it answered before these channels were removed; what became of it, in sentences.

    Raises:
        PassError: if there are no calibration cases, or what was seen on them is not finite.
    """
    cases = calibration_cases(task, None, "prune", "; or set refit: false and train afterwards")[:CALIBRATION_CASES]
    inputs: Images = partial(images, task, cases)
    fitted, others = refit_pruned(net, whole, positions(cuts), inputs, len(cases))
    same = agreement(net, whole, inputs())
    told = (
        f"{len(fitted)} layers fitted to {len(cases)} calibration cases, where {same:.1%} of the foreground keeps "
        "its class"
    )
    return [told, *others.lines()]
