"""Small blocks in the place of stretches of the trained network, chosen under a budget.

Each stretch with one way in and one way out (editing/blocks/stretches.py) may be replaced by a block of any kind in
networks/blocks/kinds. Blocks learn apart what their stretch answers; an integer program chooses those with the least
summed loss whose savings meet the budget; the best few choices are compared on validation cases (Molchanov et al. 2022,
LANA, arXiv 2107.10624).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from compress.data.dataset.cases import Role
from compress.editing.blocks.candidates import kinds
from compress.editing.blocks.choice import Budget, Changed, Priced
from compress.editing.blocks.front import Front
from compress.editing.blocks.prices import Counted, Price, Timed
from compress.editing.blocks.search import Search
from compress.editing.blocks.stretches import Stretch, stretches
from compress.editing.budget import Positive, ToABudget
from compress.editing.layer_replacement import SkippedSites, copied, finite
from compress.errors import PassError
from compress.passes.distill import Distill
from compress.storage.description import described
from export.modules import Precision
from export.registry import find_backend, find_device

if TYPE_CHECKING:
    from compress.task import Task


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Blocks(ToABudget):
    """Replace stretches by blocks, as many as the budget asks for; give one of macs, params, latency_ms and latency."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    space: tuple[str | dict[str, dict[str, Any]], ...] | None = None
    """Kinds of blocks that are tried: words, each in its usual sizes or with options, such as
    `{inverted_residual: {expand: 3}}`. None: every kind in compress/networks/blocks/kinds."""
    where: str | tuple[str, ...] = "*"
    """Stretches of which layers: names, modules (`decoder`) or patterns (`encoder.*`)."""
    steps: Annotated[int, Field(ge=1)] = 300
    """Training steps of each block, on augmented train cases."""
    tried: Annotated[int, Field(ge=1, le=20)] = 3
    """Choices, the best by the sum of what their blocks lose; the one that, fitted together, is nearest to the trained
    network on validation cases is returned."""
    front: tuple[Positive, ...] = ()
    """Other budgets, in the same unit: what each would give is told, from the same trained blocks, before recovery."""
    recover: Distill | None = None
    """Training of each choice, so that the best validation Dice decides: the options of `distill`: `{epochs: 1}`."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for option in ("space", "where"):
            if getattr(self, option) == ():
                raise ValueError(f"{option}: names nothing; leave it out, and all there is is tried")
        kinds(self.space)
        if self.latency is not None and (whole := [each for each in self.front if each >= 1]):
            raise ValueError(f"front: {whole[0]:g} is no share below 1, as latency, {self.latency:g}, is")
        if self.is_timed and find_backend(self.backend).runs_modules:
            others = [word for word in find_device(self.device).backends if not find_backend(word).runs_modules]
            raise ValueError(
                f"backend '{self.backend}' runs no file of blocks on {self.device}; {', '.join(others)} do"
            )
        return self

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("train", "val")

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network with blocks in it.

        Raises:
            PassError: if no stretch can be replaced (with the reasons), the budget is met already or out of reach,
                there are no train or validation cases, or weights are not finite.
        """
        for role in self.uses:
            if not task.data.cases[role]:
                raise PassError(f"blocks: there are no {role} cases; give some the split '{role}'")
        net, kept = copied(net, "blocks"), SkippedSites(word="blocks")
        broken = [name for name, part in net.named_modules() if not list(part.children()) and not finite(part)]
        if broken:
            raise PassError(f"blocks: the weights of {broken[0]} are not finite; give a network whose weights are")
        budget = self._budget(net, task)
        found = self._stretches(net, task, kept)
        search = Search(net=net, task=task, budget=budget, kinds=kinds(self.space), steps=self.steps)
        priced = search.learned(search.worth(found, kept))
        choices = budget.choices(net, priced, self.tried)
        best = self._best(choices, search)
        for line in (*_told(best, priced, budget), *self._front(search, priced), *kept.lines()):
            task.note(line)
        return described(best.net)

    def _budget(self, net: nn.Module, task: Task) -> Budget:
        timed = Timed(runtime=self.runtime, seed=task.seed, folder=task.kept)
        price: Price = timed if self.is_timed else Counted(what="params" if self.macs is None else "macs")
        whole = price.of_networks([net], task.example)[0]
        asked = self._target(getattr(self, self._word), whole)
        return Budget(price=price, whole=whole, target=asked, example=task.example)

    @property
    def _word(self) -> str:
        """The budget that is given."""
        return next(name for name in self.budgets if getattr(self, name) is not None)

    def _target(self, asked: float, whole: float) -> float:
        return asked * whole if self._word != "latency_ms" and asked <= 1 else asked

    def _front(self, search: Search, priced: Sequence[Priced]) -> Iterator[str]:
        """What other budgets would give, in sentences; a table and a plot where the run keeps files."""
        points = []
        for asked in sorted(set(self.front), reverse=True):
            target = self._target(asked, search.budget.whole)
            try:
                points.append(search.point(asked, dataclasses.replace(search.budget, target=target), priced))
            except PassError as error:
                yield f"blocks: front: {self._word} {asked:g}: {str(error).removeprefix('blocks: ')}"
        if points:
            front = Front(word=self._word, points=points, began=search.dice(search.net))
            yield from front.told()
            if search.task.kept is not None:
                yield front.write(search.task.kept / "blocks", f"front-{self._word}")

    def _stretches(self, net: nn.Module, task: Task, kept: SkippedSites) -> list[Stretch]:
        """The stretches of the layers that `where` names."""
        # Only here: importing it takes time and memory.
        from export.quantization.placement import matches

        image = torch.from_numpy(next(iter(task.probes(most=1))))
        found = stretches(net, image, kept)
        if not found:
            raise kept.nothing_done("no stretch of the network can be replaced")
        patterns = (self.where,) if isinstance(self.where, str) else self.where
        for pattern in patterns:
            if not any(matches(conv, pattern) for each in found for conv in each.convs):
                names = ", ".join(each.name for each in found[:8])
                raise PassError(f"blocks: where '{pattern}' names no layer of a stretch; there are {names}")
        return [each for each in found if all(any(matches(conv, one) for one in patterns) for conv in each.convs)]

    def _best(self, choices: Sequence[Changed], search: Search) -> Changed:
        """The choice nearest to the trained network; of those that were trained, that with the best validation Dice."""
        scored, task = list[tuple[float, Changed]](), search.task
        for number, choice in enumerate(choices, start=1):
            apart, together = search.fitted(choice)
            net, score = choice.net, -min(apart, together)
            if self.recover is not None:
                folder = None if task.folder is None else task.folder / f"choice-{number}"
                net = self.recover(described(net), dataclasses.replace(task, folder=folder)).eval()
            dice = search.dice(net)
            task.note(
                f"blocks: choice {number} of {len(choices)}: validation Dice {dice:.4f}; overlap lost {apart:.4f} as "
                f"trained apart, {together:.4f} fitted together, predicted {choice.loss:.4f}"
            )
            scored.append((score if self.recover is None else dice, dataclasses.replace(choice, net=net)))
        return max(scored, key=lambda pair: pair[0])[1]


def _told(best: Changed, priced: Sequence[Priced], budget: Budget) -> Iterator[str]:
    """What was chosen, what it was predicted to cost and to lose, and what it costs."""
    price, off = budget.price, abs(best.added_up - best.cost) / best.cost
    places = len({each.candidate.stretch for each in priced})
    yield (
        f"blocks: {len(best.chosen)} stretches replaced, of {places} for which {len(priced)} blocks were tried: "
        f"{'; '.join(each.told() for each in best.chosen)}"
    )
    yield (
        f"blocks: {price.told(best.cost)} where {price.told(budget.target)} are allowed; added up from its parts "
        f"it was {price.told(best.added_up)} ({off:.1%} off)"
    )
