"""How much each unit of a quantized network disturbs its logits in integers: the proxy that Dice calibrates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compress.editing.precisions.bench import with_units
from compress.editing.precisions.units import Units
from compress.errors import PassError
from compress.measure.segmentation import DICE
from compress.progress import bar
from export.artifact import Infer
from export.backends.torch import infer_from_module
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules

if TYPE_CHECKING:
    from compress.data.dataset.cases import Role
    from compress.task import Task

LOOKED_AT = 4
"""Calibration cases on which single layers are compared."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Mean squared errors of the logits."""

    whole: float
    """With all units in integers."""
    layers: Mapping[str, float]
    """With this layer alone in integers."""
    operators: Mapping[str, float]
    """How much less it is with this operator in float, all else in integers; and what it reads, where it must be."""


@torch.inference_mode()
def errors_of(quantized: Quantized, units: Units, rules: Rules, task: Task) -> Errors:
    """What each unit adds to the error of the logits.

    The order of Dong et al. 2019 (HAWQ, arXiv 1905.03696), with the error in the place of the Hessian's estimate.
    """
    cases = task.data.cases["calibration"][:LOOKED_AT]
    images = [torch.from_numpy(image) for image in task.data.images(cases)]
    wanted = [quantized.graph(image) for image in images]

    def error(in_float: Sequence[str]) -> float:
        return squared_error(with_units(quantized, rules, frozenset(in_float)).simulated(rules), images, wanted)

    every = units.names
    alone = {
        layer: error([other for other in every if other != layer])
        for layer in bar(units.layers, "looking for layers that need float", len(units.layers))
    }
    whole, needs = error(()), _needs(units)
    less = {name: whole - error([name, *needs[name]]) - sum(alone[each] for each in needs[name]) for name in needs}
    return Errors(whole=whole, layers=alone, operators={name: max(gain, 0.0) for name, gain in less.items()})


def _needs(units: Units) -> dict[str, list[str]]:
    """The layers that are in float with each operator."""
    return {name: [layer for operator, layer in units.needs if operator == name] for name in units.operators}


def squared_error(net: Callable[[Tensor], Tensor], images: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The mean squared error of the logits, added up over images."""
    return sum(float((net(image) - logits).square().mean()) for image, logits in zip(images, wanted, strict=True))


def dice_of(net: nn.Module | Infer, task: Task, role: Role = "val") -> np.ndarray:
    """The Dice of every case of a role and class (NK); NaN where there is nothing of the class."""
    infer, cases = infer_from_module(net) if isinstance(net, nn.Module) else net, task.data.cases[role]
    tried = bar(cases, "Dice of a choice of layers", len(cases))
    return np.stack([task.score(infer, case, surfaces=False).values_KM[:, DICE] for case in tried])


def lost(before_NK: np.ndarray, after_NK: np.ndarray, word: str) -> float:
    """The mean drop of the class that loses most, over the cases in which both have it.

    Args:
        word: of the pass that asks.

    Raises:
        PassError: if there is no such case.
    """
    return max(float(each.mean()) for each in _drops(before_NK, after_NK, word))


def feared(before_NK: np.ndarray, after_NK: np.ndarray, word: str) -> float:
    """The same, and a standard error more: what is chosen of many because it loses little has been lucky, too."""
    return max(
        float(each.mean() + each.std() / math.sqrt(max(each.size - 1, 1))) for each in _drops(before_NK, after_NK, word)
    )


def _drops(before_NK: np.ndarray, after_NK: np.ndarray, word: str) -> list[np.ndarray]:
    drops = [each[np.isfinite(each)] for each in (before_NK - after_NK).T]
    if not any(each.size for each in drops):
        raise PassError(f"{word}: no case holds anything of any class, so that no drop can be measured")
    return [each for each in drops if each.size]


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.2f} %"
