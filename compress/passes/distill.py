"""Recovery after a structural change: training on the task's train cases, with the uncompressed network as teacher.

Hinton et al. 2015 (arXiv 1503.02531) and, for segmentation, Shu et al. 2021 (CWD, arXiv 2011.13256) and Liu et al.
2019 (SKD, arXiv 1903.04197). `teacher: 0` is plain fine-tuning.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from compress.cache import code_key, key_of
from compress.data.dataset.cases import Role
from compress.editing.layer_replacement import copied
from compress.errors import PassError
from compress.train.augment import Augment, PresetOrMore
from compress.train.losses.combined import DiceCE
from compress.train.losses.sum import Losses, OneOrMore
from compress.train.training import supervised, training_augmentation, training_data
from export.files import make_folder, write_json
from export.modules import Precision, copy_of

if TYPE_CHECKING:
    from compress.task import Task
    from compress.train.loop import Outcome
    from compress.train.objective import Objective
    from compress.train.plan import Plan

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Distill:
    """Train on, towards the truth and the teacher; give `epochs` or `steps` (default: 30 epochs)."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    epochs: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Peak learning rate; None finds one in a short range test."""
    truth: Weight = 1.0
    """Weight of Dice + cross entropy against the masks."""
    teacher: Weight = 1.0
    """Weight of all that is learnt from the teacher; 0 is plain fine-tuning."""
    logits: Weight = 1.0
    """Of the divergence from the teacher's class probabilities at each pixel."""
    channels: Weight = 0.0
    """Of the divergence of each class's map over the pixels (CWD)."""
    pairwise: Weight = 0.0
    """Of the similarities between regions of the features (SKD)."""
    attention: Weight = 0.0
    """Of the maps of activity (attention transfer)."""
    features: Weight = 0.0
    """Of the features themselves, through 1x1 adapters that are thrown away afterwards (FitNets)."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Softens both networks' probabilities; 1 keeps the logits as they are."""
    loss: OneOrMore = Losses(dice_ce=DiceCE())
    """What `truth` weighs: a loss, one with options, or a sum, as in `train`."""
    augment: PresetOrMore = Augment()
    """A preset (`none`, `flips`, `strong`), or one with changes, as in `train`."""
    views: Annotated[int, Field(ge=1)] | None = None
    """Ways in which each case is augmented, the teacher's logits for each kept; None: new ones at every step."""
    average: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Decay of the moving average of the weights; None: 0.99, less where there are few steps."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs of the second half without a better validation score until it stops; None: a third of all, at least 8."""
    devices: Annotated[int, Field(ge=1)] = 1
    """Processes that share each batch, every one on a GPU of its own, or on its part of the CPU's cores."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; give one")
        if self.truth == 0 and not self._asks:
            raise ValueError("truth is 0 and so is everything of the teacher's: there is nothing to learn from")
        return self

    @property
    def _asks(self) -> bool:
        parts = (self.logits, self.channels, self.pairwise, self.attention, self.features)
        return self.teacher > 0 and any(parts)

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("train", "val")

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network in its best state by validation Dice, the one it started from included.

        Raises:
            PassError: if there are no train or validation cases, the loss is not finite, or features are
                asked for and no layers of the two networks belong together.
        """
        student = copied(net, "distill")
        task = replace(task, data=training_data(task.data))
        for role in self.uses:
            if not task.data.cases[role]:
                raise PassError(f"distill: there are no {role} cases; give some the split '{role}'")
        if task.folder is not None:
            return self._trained(student, task, task.folder)
        with TemporaryDirectory() as folder:
            return self._trained(student, task, Path(folder))

    def _trained(self, student: nn.Module, task: Task, folder: Path) -> nn.Module:
        from compress.train.loop import fit

        folder = _own(self, folder, student, task)
        views = folder if task.views is None or self.views is None else _shared(self, task.views, task)
        objective = self._objective(student, task, views)
        plan = self._plan(student, objective, task, folder, views)
        outcome = fit(plan, objective, student, task.data, folder, task.seed, task.note, views, self.devices)
        _tell(outcome, plan, task)
        return student.eval()

    def _objective(self, student: nn.Module, task: Task, views: Path) -> Objective:
        import torch

        from compress.train.array_cache import ArrayCache
        from compress.train.teacher import Taught, Teacher, Terms

        share = self.teacher
        terms = Terms(
            truth=self.truth,
            logits=share * self.logits,
            channels=share * self.channels,
            pairwise=share * self.pairwise,
            attention=share * self.attention,
            features=share * self.features,
            temperature=self.temperature,
        )
        teacher = None
        if terms.ask:
            net, cache = copy_of(task.net).eval(), None
            if self.views is not None and not terms.watch:
                with torch.no_grad():
                    shape = tuple(net(task.example).shape[1:])
                cache = ArrayCache(views / "logits.f16", self.views, len(task.data.cases["train"]), shape, "float16")
            teacher = Teacher(net, cache)
        torch.manual_seed(task.seed)
        return Taught(student, teacher, task.example, terms, supervised(self.loss, task.data))

    def _plan(self, student: nn.Module, objective: Objective, task: Task, folder: Path, views: Path) -> Plan:
        """The numbers of this training, found once: one that was interrupted goes on with the same."""
        from compress.train.plan import Plan

        length = math.ceil(len(task.data.cases["train"]) / task.data.batch)
        path = folder / "plan.json"
        if not path.is_file():
            write_json(path, self._found(student, objective, task, views))
        found = json.loads(path.read_text())
        steps = found["steps"]
        return Plan(
            steps=steps,
            rate=found["rate"],
            # An average over more steps than there are would still hold the starting state.
            average=self.average if self.average is not None else min(0.99, 1 - 10 / (steps + 10)),
            augment=training_augmentation(self.augment, task.data),
            views=self.views,
            patience=self.patience or max(8, math.ceil(steps / length / 3)),
            keep_start=True,
        )

    def _found(self, student: nn.Module, objective: Objective, task: Task, views: Path) -> dict[str, Any]:
        steps = self.steps or (self.epochs or 30) * math.ceil(len(task.data.cases["train"]) / task.data.batch)
        if self.rate is not None:
            return {"steps": steps, "rate": self.rate}
        from compress.train.batches import batches, view_cache
        from compress.train.fabric import fabric_for
        from compress.train.plan import Plan
        from compress.train.precision import precision
        from compress.train.range_test import range_test

        count = min(48, max(16, steps // 10))
        plan = Plan(steps=count, rate=1e-3, augment=training_augmentation(self.augment, task.data), views=self.views)
        stream = batches(task.data, plan, 0, task.seed, view_cache(views, plan, task.data))
        fabric = fabric_for(precision(student, task.data))
        found = range_test(student, objective, stream, count, fabric)
        task.note(f"learning rate {found.rate:g}, {steps} steps ({found.seconds:.2f} s each in the range test)")
        return {"steps": steps, "rate": found.rate}


def _own(how: Distill, folder: Path, student: nn.Module, task: Task) -> Path:
    """A folder for exactly this training: another network, other options or other data begin anew."""
    key = key_of(code_key(), how, _state(student), task.data.fingerprint(), task.seed)
    return make_folder(folder / f"training-{key[:12]}")


def _shared(how: Distill, folder: Path, task: Task) -> Path:
    """A folder for exactly these views and this teacher: another step that asks for the same finds them there."""
    augment = training_augmentation(how.augment, task.data)
    key = key_of(code_key(), augment, how.views, _state(task.net), task.data.fingerprint(), task.seed)
    return make_folder(folder / key[:12])


def _tell(outcome: Outcome, plan: Plan, task: Task) -> None:
    started = outcome.started if outcome.started is not None else float("nan")
    if outcome.best_epoch == 0:
        task.note(
            f"recovery ended below where it started (validation Dice {started:.4f}): the starting state is returned"
        )
    else:
        task.note(
            f"validation Dice {started:.4f} -> {outcome.best:.4f} (epoch {outcome.best_epoch} of {outcome.epochs}, "
            f"peak rate {plan.rate:g})"
        )


def _state(net: nn.Module) -> list[tuple[str, tuple[int, ...], float]]:
    """What tells one set of weights from another."""
    return [(name, tuple(tensor.shape), tensor.double().sum().item()) for name, tensor in net.state_dict().items()]
