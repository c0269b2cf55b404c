"""Blocks that learn, each apart, to answer as the stretch that they may replace.

Blockwise distillation: Li et al. 2020, DNA (arXiv 1911.13053); Molchanov et al. 2022, LANA (arXiv 2107.10624).

A block begins as near to that as least squares bring it (fitting.py); then all of its layers are trained. What comes
in is always what the trained network gives, so that blocks need not wait for each other.

Legend: B batch, C channels, S one or more axes of pixels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from compress.editing.activations import images
from compress.editing.blocks.candidates import Candidate
from compress.editing.blocks.fitting import begin
from compress.editing.blocks.seen import Error, Seen, seen_at, watch
from compress.editing.blocks.stretches import Stretch
from compress.train.augment import Augment
from compress.train.batches import batches, view_cache
from compress.train.fabric import fabric_for
from compress.train.plan import Plan
from compress.train.precision import precision
from compress.train.training import training_augmentation, training_data

if TYPE_CHECKING:
    from compress.task import Task

FITTED = 8
"""Train cases that a block is fitted to before it is trained."""
MOST_BYTES = 256e6
"""Of what a stretch sees on them, kept in memory."""
CHECKED = 16
"""Validation cases on which blocks are compared."""
VIEWS = 4
"""Ways in which each train case is augmented, at most: made anew for each stretch they would take most of the time."""
RATE, GENTLE = 2e-3, 1e-3
"""Peak learning rate of a block, and of one that begins as trained layers."""


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What the blocks of one network learn from."""

    net: nn.Module
    """The trained network, which does not change."""
    task: Task
    steps: int
    folder: Path
    """Where augmented cases lie, which are the same for every stretch."""

    def learned(self, found: Sequence[Candidate], step: Callable[[], None]) -> list[float]:
        """Train blocks of some stretches in place, side by side.

        Args:
            step: called for each block that learns after it was fitted and after each of its steps, for a progress bar.

        Returns:
            The error of each on validation cases, relative to how much its stretch's answers vary.
        """
        able = [each for each in found if each.learns]
        for stretch, some in by_stretch(able).items():
            remembered = self._remembered(stretch)
            for each in some:
                begin(each, remembered)
                step()
        begun, states = self._errors(able), [copy.deepcopy(each.block.state_dict()) for each in able]
        self._train(able, begun, step)
        errors = self._errors(found)
        for each, state in zip(able, states, strict=True):
            if not errors[each] <= begun[each]:
                each.block.load_state_dict(state)
                errors[each] = begun[each]
        return [errors[each] for each in found]

    def _remembered(self, stretch: Stretch) -> list[Seen]:
        """What a stretch sees on some train cases, as much as there is memory for."""
        found: list[Seen] = []
        for image in images(self.task, self.task.data.cases["train"][:FITTED]):
            found.append(seen_at(self.net, stretch, image))
            if sum(seen.bytes for seen in found) > MOST_BYTES:
                break
        return found

    def _errors(self, found: Sequence[Candidate]) -> dict[Candidate, float]:
        errors, blocks = {each: Error() for each in found}, by_stretch(found)

        def look(stretch: Stretch, seen: Seen) -> None:
            for each in blocks[stretch]:
                errors[each].add(each.block.eval()(seen.into), seen.out)

        for image in images(self.task, self.task.data.cases["val"][:CHECKED]):
            watch(self.net, list(blocks), image.to(next(self.net.parameters()).device), look)
        return {each: error.share() for each, error in errors.items()}

    @cached_property
    def _fabric(self) -> Fabric:
        return fabric_for(precision(self.net, self.task.data))

    def _train(self, found: Sequence[Candidate], begun: Mapping[Candidate, float], step: Callable[[], None]) -> None:
        """Train blocks side by side; one that is no better after half of the steps than it began is trained no more."""
        fabric = self._fabric
        self.net.to(fabric.device)
        pupils = {each: _Pupil(each, self.steps, fabric) for each in found}
        half = self.steps // 2

        for number, image_BCS in enumerate(islice(self._batches(), self.steps)):
            if number == half > 0:
                errors = self._errors(list(pupils))
                for each in [each for each in pupils if not errors[each] < begun[each]]:
                    del pupils[each]
                    for _ in range(self.steps - half):
                        step()
            if not pupils:
                break
            with fabric.autocast():
                self._lesson(pupils, image_BCS.to(fabric.device), step)
        for module in (self.net, *(each.block for each in found)):
            module.to("cpu").eval()

    def _lesson(self, pupils: Mapping[Candidate, _Pupil], image_BCS: Tensor, step: Callable[[], None]) -> None:
        blocks = by_stretch(list(pupils))

        def look(stretch: Stretch, seen: Seen) -> None:
            for each in blocks[stretch]:
                pupils[each].learn(seen)
                step()

        watch(self.net, list(blocks), image_BCS, look)

    def _batches(self) -> Iterator[Tensor]:
        """Augmented train cases without end; a function of the seed alone, and the same for every stretch."""
        data = training_data(self.task.data)
        views = math.ceil(self.steps * data.batch / len(data.cases["train"]))
        plan = Plan(
            steps=self.steps,
            rate=RATE,
            augment=training_augmentation(Augment(), data),
            views=min(VIEWS, views),
        )
        cache = view_cache(self.folder, plan, data)
        return (batch.image_BCHW for epoch in count() for batch in batches(data, plan, epoch, self.task.seed, cache))


def by_stretch(found: Sequence[Candidate]) -> dict[Stretch, list[Candidate]]:
    """The blocks of each stretch."""
    groups: dict[Stretch, list[Candidate]] = {}
    for each in found:
        groups.setdefault(each.stretch, []).append(each)
    return groups


class _Pupil:
    """One block, and what its training needs."""

    def __init__(self, candidate: Candidate, steps: int, fabric: Fabric) -> None:
        self.block, self.fabric = candidate.block.to(fabric.device), fabric
        body = candidate.body
        # Norms that are fresh follow what they see; those at the end, and all of trained layers, stay as they are.
        self.fresh = nn.ModuleList([] if body is None else [each for each in (*body.layers, body.last) if each])
        self.parameters = list(self.block.parameters())
        rate = RATE if candidate.thinned is None else GENTLE
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=rate, total_steps=steps + 1, pct_start=0.15
        )

    @torch.enable_grad()
    def learn(self, seen: Seen) -> None:
        # BatchNorm has no variance over a single value.
        self.fresh.train(seen.into.numel() > seen.into.shape[1])
        with self.fabric.autocast():
            answer = self.block(seen.into)
        spread = seen.out.float().var(unbiased=False).clamp_min(1e-12)
        loss = (answer.float() - seen.out.float()).square().mean() / spread
        if bool(torch.isfinite(loss)):
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, max_norm=5.0)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
