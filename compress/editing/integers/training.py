"""Integers that are trained: the options, and the one training loop with the network in float as teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.cache import code_key, key_of
from compress.editing.mixed_precision import on_cpus
from compress.errors import PassError
from compress.train.augment import Augment, PresetOrMore
from compress.train.losses.combined import DiceCE
from compress.train.losses.sum import Losses
from compress.train.training import supervised, training_augmentation, training_data
from export.files import make_folder
from export.modules import copy_of
from export.quantization.learnt import Learnt
from export.quantization.quantized import Quantized
from export.quantization.weight_grids import integer_layers, weight_grids

if TYPE_CHECKING:
    from compress.task import Task


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LearnSteps:
    """How weights and the steps of their grids are trained together (LSQ, Esser et al. 2020, arXiv 1902.08153)."""

    epochs: Annotated[int, Field(ge=1)] = 3
    rate: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Peak learning rate; a tenth of what a network in float is fine-tuned with is usual."""
    teacher: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of the uncompressed network's class probabilities, beside the masks'; 0 learns from masks alone."""
    augment: PresetOrMore = Augment()
    """As in `distill`."""


def trained(word: str, how: LearnSteps, quantized: Quantized, task: Task, bits: Callable[[str], int]) -> Quantized:
    """The network with weights, biases and steps in their best state by validation Dice; it may be that it came in.

    Args:
        word: of the pass, for what is told.
        bits: of the weights of a layer, by its name.

    Raises:
        PassError: if there are no train or validation cases, or the loss is not finite.
    """
    task = replace(task, data=training_data(task.data))
    for role in ("train", "val"):
        if not task.data.cases[role]:
            raise PassError(f"{word}: train needs {role} cases and there are none; give some the split '{role}'")
    if task.folder is not None:
        return _trained(word, how, quantized, task, bits, task.folder)
    with TemporaryDirectory() as folder:
        return _trained(word, how, quantized, task, bits, Path(folder))


def _trained(
    word: str, how: LearnSteps, quantized: Quantized, task: Task, bits: Callable[[str], int], folder: Path
) -> Quantized:
    # Only here: the training loop takes a second to import.
    from compress.train.learned_steps import LearnedSteps
    from compress.train.loop import fit
    from compress.train.plan import Plan
    from compress.train.teacher import Taught, Teacher, Terms

    rules, ranges = on_cpus()[0], quantized.spans()
    layers = integer_layers(quantized.graph, quantized.assignment.keep_float)
    grids = weight_grids(quantized.graph, layers, ranges, bits, rules)
    grids |= {path: grid for path, grid in quantized.learnt.grids.items() if grid.bits < 8}
    steps = LearnedSteps(quantized.graph, grids, ranges, rules)
    teacher = Teacher(copy_of(task.net).eval(), None) if how.teacher else None
    terms = Terms(
        truth=1.0, logits=how.teacher, channels=0.0, pairwise=0.0, attention=0.0, features=0.0, temperature=2.0
    )
    torch.manual_seed(task.seed)
    objective = Taught(steps, teacher, task.example, terms, supervised(Losses(dice_ce=DiceCE()), task.data))
    count = how.epochs * math.ceil(len(task.data.cases["train"]) / task.data.batch)
    plan = Plan(
        steps=count,
        rate=how.rate,
        # A step is no weight: pulled towards zero it would leave the network.
        weight_decay=0.0,
        average=min(0.99, 1 - 10 / (count + 10)),
        augment=training_augmentation(how.augment, task.data),
        keep_start=True,
    )
    state = [(name, tensor.double().sum().item()) for name, tensor in quantized.state_dict().items()]
    own = make_folder(folder / f"steps-{key_of(code_key(), how, state, task.data.fingerprint(), task.seed)[:12]}")
    outcome = fit(plan, objective, steps, task.data, own, task.seed, task.note)
    if outcome.best_epoch == 0:
        task.note(f"{word}: training ended below where it started, so that nothing of it is kept")
        return quantized
    graph, learnt_grids, learnt_ranges = steps.learnt(ranges)
    task.note(
        f"{word}: learned steps took validation Dice of the simulated integers from {outcome.started:.4f} to "
        f"{outcome.best:.4f} (epoch {outcome.best_epoch} of {outcome.epochs})"
    )
    return Quantized(graph, learnt_ranges, quantized.assignment, Learnt(grids=learnt_grids)).eval()
