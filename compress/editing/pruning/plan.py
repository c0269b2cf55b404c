"""Which channels go: the least important of each group, or of all, to widths that runtimes are fast at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from compress.editing.named_layers import check_keep, named
from compress.editing.pruning.dependency.groups import Bundle, Flow
from compress.editing.pruning.dependency.trace import TensorAxis
from compress.editing.pruning.importance import Criterion, importance
from compress.editing.pruning.removal import Cut
from compress.editing.pruning.trial import Trial, keeping, kept, prunable, refusals, trial_of

if TYPE_CHECKING:
    from compress.task import Task

Scope = Literal["local", "global"]
Channels = Mapping[frozenset[TensorAxis], int]
"""How many channels each bundle has, by its key."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """The widths that a layer may be cut to."""

    multiple: int | None
    """None: multiples of 16, and 8."""
    most: float
    """The largest share of a layer's channels that may go."""

    def fits(self, width: int) -> bool:
        """Whether a layer may be cut to so many channels."""
        return width % self.multiple == 0 if self.multiple else width % 16 == 0 or width == 8

    def least(self, began: int) -> int:
        """The narrowest that a layer of so many channels may become."""
        return max(1, math.ceil(began * (1 - self.most) - 1e-9))

    def __str__(self) -> str:
        return f"multiples of {self.multiple}" if self.multiple else "multiples of 16, and 8"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """By what channels are chosen."""

    by: Criterion
    scope: Scope
    widths: Widths
    keep: Sequence[str] = ()
    """Layers that keep all their output channels."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What could be cut from a network: its groups, and what each of their channels is worth."""

    choice: Choice
    net: nn.Module
    trial: Trial
    bundles: Sequence[Bundle]
    flow: Flow
    scores: Sequence[Tensor]
    """For each bundle, the importance of each unit; empty where the bundle is not to be pruned."""
    began: Channels
    """Each prunable bundle's channels before the first round."""

    def cuts(self, share: float) -> list[Cut]:
        """What goes if this share of the channels that there were before the first round is to go."""
        local = self.choice.scope == "local"
        wanted = self._wanted_locally(share) if local else self._wanted_globally(share)
        found = (self._cut(index, width) for index, width in wanted.items())
        return [cut for cut in found if cut is not None]

    def possible(self, cuts: Sequence[Cut]) -> Plan:
        """The plan without those of these cuts that the network refuses; itself if it takes all of them together."""
        refused = refusals(self.trial, self.flow, cuts)
        return replace(self, bundles=keeping(self.bundles, refused)) if refused else self

    @property
    def open(self) -> list[int]:
        """The bundles of which something may go, by their index."""
        return [index for index, bundle in enumerate(self.bundles) if bundle.group.prunable]

    @property
    def done(self) -> bool:
        """Whether an earlier round has removed something."""
        return any(one.group.channels < self.began.get(one.key, 0) for one in self.bundles)

    @property
    def gone(self) -> float:
        """The share of channels that earlier rounds have removed."""
        here = sum(self.bundles[index].group.channels for index in self.open)
        return 1 - here / sum(self.channels_before(index) for index in self.open)

    def channels_before(self, index: int) -> int:
        """How many channels a bundle had before the first round."""
        return self.began[self.bundles[index].key]

    def widths_after(self, cuts: Sequence[Cut]) -> list[int]:
        """For each bundle, the channels that are left."""
        gone = {
            cut.bundle.key: sum(len(cut.bundle.units[unit][cut.bundle.made_in]) for unit in cut.units) for cut in cuts
        }
        return [one.group.channels - (gone.get(one.key, 0) if one.group.prunable else 0) for one in self.bundles]

    def _wanted_locally(self, share: float) -> dict[int, float]:
        return {index: self.channels_before(index) * (1 - share) for index in self.open}

    def _wanted_globally(self, share: float) -> dict[int, float]:
        """The width of each bundle once the least important units of all are gone."""
        widths: dict[int, float] = {index: self.bundles[index].group.channels for index in self.open}
        least = {index: self.choice.widths.least(self.channels_before(index)) for index in widths}
        ranked = sorted(
            (score, index, len(self.bundles[index].units[unit][self.bundles[index].made_in]))
            for index in widths
            for unit, score in enumerate(self.scores[index].tolist())
        )
        stay = sum(self.channels_before(index) for index in widths) * (1 - share)
        total = sum(widths.values())
        for _, index, size in ranked:
            if total - size < stay:
                break
            if widths[index] - size >= least[index]:
                widths[index] -= size
                total -= size
        return widths

    def _cut(self, index: int, wanted: float) -> Cut | None:
        """The least important units, so many that the width is the one that fits nearest to the one wanted."""
        bundle, allowed = self.bundles[index], self.choice.widths
        order = self.scores[index].argsort(stable=True).tolist()
        width, goes = bundle.group.channels, 0
        distance = abs(width - wanted)
        for count, unit in enumerate(order[:-1], 1):
            width -= len(bundle.units[unit][bundle.made_in])
            if width < allowed.least(self.channels_before(index)):
                break
            if allowed.fits(width) and abs(width - wanted) < distance:
                goes, distance = count, abs(width - wanted)
        return Cut(bundle=bundle, units=tuple(sorted(order[:goes]))) if goes else None


def plan_for(net: nn.Module, task: Task, choice: Choice, began: Channels) -> Plan:
    """What could be cut from a network now.

    Args:
        began: the channels of each bundle before the first round, as the plan of an earlier round has it.

    Raises:
        PassError: if `keep` names no layer, or a criterion lacks the cases that it looks at.
        ExportError: if torch.export cannot capture the network.
    """
    trial = trial_of(net, task.example)
    bundles, flow = prunable(trial)
    bundles = _keeping_named(bundles, choice.keep)
    scores = importance(net, bundles, choice.by, task)
    bundles = [
        kept(one, f"by: {choice.by} has nothing to go by there") if one.group.prunable and score is None else one
        for one, score in zip(bundles, scores, strict=True)
    ]
    return Plan(
        choice=choice,
        net=net,
        trial=trial,
        bundles=bundles,
        flow=flow,
        scores=[torch.empty(0) if score is None else score for score in scores],
        began={one.key: one.group.channels for one in bundles if one.group.prunable} | dict(began),
    )


def _keeping_named(bundles: Sequence[Bundle], keep: Sequence[str]) -> list[Bundle]:
    check_keep(keep, [layer for bundle in bundles for layer in bundle.group.layers], "prune")
    return [
        kept(one, "the recipe keeps it")
        if one.group.prunable and any(named(layer, keep) for layer in one.group.layers)
        else one
        for one in bundles
    ]
