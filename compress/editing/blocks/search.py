"""Blocks for all stretches of a network: those worth trying, trained and judged."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress.editing.activations import images
from compress.editing.blocks.candidates import Candidate, Kinds, candidates
from compress.editing.blocks.choice import Budget, Changed, Priced, losses
from compress.editing.blocks.front import Point
from compress.editing.blocks.seen import Overlap, seen_at
from compress.editing.blocks.stretches import Stretch
from compress.editing.layer_replacement import SkippedSites
from compress.progress import bar, steps
from export.files import make_folder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from compress.task import Task

LEAST = 0.01
"""A block is worth trying where it saves this share of what the network costs."""
TOGETHER = 48
"""Blocks that are trained side by side: the trained network runs once for all of them."""
MOST_PARAMS = 30e6
"""Of theirs, each of which takes 16 bytes while it is trained."""
MOST_BYTES = 256e6
"""Of the trained network's answers, kept in memory."""
LOOKED_AT = 8
"""Validation cases on which networks with blocks are compared with the trained one, and train cases that the blocks of
a choice are fitted to together."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What blocks are looked for with."""

    net: nn.Module
    task: Task
    budget: Budget
    kinds: Kinds
    steps: int
    """Of each block's training."""

    def worth(self, found: Sequence[Stretch], kept: SkippedSites) -> list[tuple[Candidate, float]]:
        """The blocks that save something, each with what it saves.

        Raises:
            PassError: if there are none, or they do not reach the budget.
        """
        whole = self.budget.whole
        made = list(self._candidates(found))
        saved = self.budget.price.saved(made, self.net, self.task.example, whole)
        worth = [pair for pair in zip(made, saved, strict=True) if pair[1] >= LEAST * whole]
        tried, saving = ({each.stretch for each in some} for some in (made, [block for block, _ in worth]))
        reasons = {each.name: each in tried for each in found if each not in saving}
        for name, was_tried in reasons.items():
            little = f"no block there saves {LEAST:.0%} of what the network costs"
            kept.add(name, little if was_tried else "no block of these kinds fits its channels and sizes")
        if not worth:
            raise kept.nothing_done("no stretch was replaced")
        self.budget.check(worth)
        return worth

    def _candidates(self, found: Sequence[Stretch]) -> Iterator[Candidate]:
        for each in bar(found, "making blocks", len(found)):
            yield from candidates(each, self.kinds, self.task.seed, partial(self._into, each))

    def _into(self, stretch: Stretch) -> Iterator[Tensor]:
        """What goes into a stretch on some train cases."""
        cases = self.task.data.cases["train"][:LOOKED_AT]
        return (seen_at(self.net, stretch, image).into for image in images(self.task, cases))

    def learned(self, worth: Sequence[tuple[Candidate, float]]) -> list[Priced]:
        """Every block trained, with its errors; those that were trained before are taken from where they are kept."""
        errors = self._errors([each for each, _ in worth])
        cases = self.task.data.cases["val"][:LOOKED_AT]
        lost = losses(self.net, [each for each, _ in worth], list(images(self.task, cases)))
        return [
            Priced(candidate=each, error=errors[each], loss=loss, saved=saved)
            for (each, saved), loss in zip(worth, lost, strict=True)
            # What overflows cannot be compared.
            if math.isfinite(loss)
        ]

    def fitted(self, choice: Changed) -> tuple[float, float]:
        """Fit the blocks of a choice, in place, to what they see behind each other, where the network is nearer so.

        Returns:
            The overlap lost as trained apart, and fitted together.
        """
        from compress.editing.blocks.fitting import mend

        state, apart = copy.deepcopy(choice.net.state_dict()), self.lost(choice.net)
        cases = self.task.data.cases["train"][:LOOKED_AT]
        mend(choice.net, choice.blocks, self.net, list(images(self.task, cases)))
        if not (together := self.lost(choice.net)) < apart:
            choice.net.load_state_dict(state)
        return apart, together

    @torch.no_grad()
    def lost(self, net: nn.Module) -> float:
        """The overlap with the trained network's probabilities that a network has lost, over all validation cases.

        Few cases tell networks apart by it; Dice on them changes by whole cases, in which something is found or not.
        """
        overlap = Overlap()
        for number, image in enumerate(images(self.task, self.task.data.cases["val"])):
            overlap.add(net(image), self._trained.says(number, image))
        return overlap.lost()

    @cached_property
    def _trained(self) -> _Trained:
        return _Trained(self.net)

    def point(self, asked: float, budget: Budget, priced: Sequence[Priced]) -> Point:
        """What another budget would give.

        Raises:
            PassError: if it is not reached.
        """
        choice = budget.choices(self.net, priced, 1)[0]
        lost = min(self.fitted(choice))
        return Point(
            asked=asked,
            share=choice.cost / budget.whole,
            cost=budget.price.told(choice.cost),
            dice=self.dice(choice.net),
            lost=lost,
        )

    def dice(self, net: nn.Module) -> float:
        """The mean foreground Dice of a network on the validation cases."""
        from compress.train.loop import validation_dice
        from compress.train.training import training_data

        data, fabric = training_data(self.task.data), self._fabric
        dice = validation_dice(net.to(fabric.device), data, fabric)
        net.to("cpu")
        return dice

    @cached_property
    def _fabric(self) -> Fabric:
        from compress.train.fabric import fabric_for
        from compress.train.precision import precision

        return fabric_for(precision(self.net, self.task.data))

    def _errors(self, blocks: Sequence[Candidate]) -> dict[Candidate, float]:
        # Only here: importing what trains takes time and memory.
        from compress.editing.blocks.apart import errors_of
        from compress.editing.blocks.kept import Kept, key_of_lessons
        from compress.editing.blocks.learning import Lessons

        task = self.task
        key = key_of_lessons(self.net, task.data.fingerprint(), task.seed, self.steps)
        errors: dict[Candidate, float] = {}
        untrained: list[Candidate] = []
        with TemporaryDirectory() as scratch:
            kept = Kept(folder=(task.kept or Path(scratch)) / "blocks", key=key)
            lessons = Lessons(net=self.net, task=task, steps=self.steps, folder=make_folder(Path(scratch) / "views"))
            for each in blocks:
                if (error := kept.load(each)) is not None:
                    errors[each] = error
                else:
                    untrained.append(each)
            if task.kept is not None and errors:
                task.note(f"blocks: {len(errors)} of {len(blocks)} blocks were trained before")
            able = [each for each in untrained if each.learns]
            # What a block begins with is fitted, which takes as long as many steps where it is wide.
            with steps("training blocks", len(able) * (1 + self.steps)) as step:
                groups = list(_together(untrained, task.workers.count))
                for some, found in zip(groups, errors_of(groups, lessons, task.workers, step), strict=True):
                    for each, error in zip(some, found, strict=True):
                        kept.save(each, error)
                        errors[each] = error
        return errors


class _Trained:
    """The trained network, asked once for each of as many validation cases as there is memory for."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._known: dict[int, Tensor] = {}

    def says(self, number: int, image: Tensor) -> Tensor:
        """Its logits of the case with this number."""
        if number in self._known:
            return self._known[number]
        answer: Tensor = self.net(image)
        if (len(self._known) + 1) * answer.nbytes <= MOST_BYTES:
            self._known[number] = answer
        return answer


def _together(blocks: Sequence[Candidate], at_once: int) -> Iterator[list[Candidate]]:
    """Blocks in a row that are trained side by side: as many as a run that is stopped may lose, and memory holds.

    Args:
        at_once: groups that are trained at the same time, which are dealt blocks in turn: those in a row cost alike.
    """
    most, group = min(TOGETHER, math.ceil(len(blocks) / at_once)), list[Candidate]()
    for each in (block for first in range(at_once) for block in blocks[first::at_once]):
        if len(group) == most or sum(one.params for one in (*group, each)) > MOST_PARAMS:
            if group:
                yield group
            group = []
        group.append(each)
    if group:
        yield group
