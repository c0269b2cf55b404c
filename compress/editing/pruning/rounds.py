"""The story of pruning: in each round a plan, the share that goes, the cuts tried together, what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from compress.editing.budget import Runtime
from compress.editing.layer_replacement import copied
from compress.editing.pruning.plan import Channels, Choice, Plan, plan_for
from compress.editing.pruning.refit import refit
from compress.editing.pruning.remarks import kept_whole, remarks
from compress.editing.pruning.removal import Cut, without
from compress.editing.pruning.target import share_for_latency, share_for_size, share_of_latency
from compress.editing.pruning.trial import Refused
from compress.errors import PassError

if TYPE_CHECKING:
    from compress.task import Task

Recover = Callable[[nn.Module, "Task", int], nn.Module]
"""Trains a network between two rounds, the number of the first of which is given."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """How much goes: one of these, the others None."""

    ratio: float | None = None
    """Share of the channels."""
    macs: float | None = None
    """Multiply-accumulates that stay at most; up to 1 a share of what there was."""
    params: float | None = None
    latency_ms: float | None = None
    """What the artifact should take on the runtime."""
    latency: float | None = None
    """That as a share of what there was."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How channels are removed, a few at a time."""

    choice: Choice
    target: Target
    runtime: Runtime
    """Where a latency is measured."""
    count: int
    refit: bool
    """Whether what is left of each layer is fitted to what it answered before."""
    recover: Recover


def pruned(net: nn.Module, task: Task, how: Rounds) -> nn.Module:
    """A network with fewer channels; its input and output are as wide as before.

    Raises:
        PassError: if nothing can be removed, a target cannot be met, or `keep` names no layer.
    """
    changed = copied(net, "prune")
    how = _in_ms(changed, task, how)
    before: tuple[int, int] | None = None
    began: Channels = {}
    share = how.target.ratio or 0.0
    for number in range(1, how.count + 1):
        plan = plan_for(changed, task, how.choice, began)
        began = plan.began
        before = before or plan.trial.size()
        plan, share = _possible_share(plan, share, number, before, task, how)
        plan, cuts = _settled(plan, share, number, before, task, how)
        changed = _cut(changed, cuts, task, how)
        if number < how.count:
            changed = how.recover(changed, task, number)
    assert before is not None
    for line in remarks(plan, cuts, before, how.target.ratio):
        task.note(line)
    return changed


def _in_ms(net: nn.Module, task: Task, how: Rounds) -> Rounds:
    """The same with a latency in milliseconds, of a runtime that is there."""
    if how.target.latency_ms is None and how.target.latency is None:
        return how
    how.runtime.target().open(how.runtime.backend)
    if how.target.latency is None:
        return how
    asked = share_of_latency(net, how.target.latency, how.runtime, task.example, task.seed)
    return replace(how, target=Target(latency_ms=asked))


def _possible_share(
    plan: Plan, share: float, number: int, before: tuple[int, int], task: Task, how: Rounds
) -> tuple[Plan, float]:
    """The share of channels that goes, of a plan without what refused to be cut while it was looked for."""
    try:
        return plan, _share(plan, share, number, before, task, how)
    except Refused as refused:
        possible = plan.possible(refused.cuts)
        assert possible is not plan
        return _possible_share(possible, share, number, before, task, how)


def _share(plan: Plan, share: float, number: int, before: tuple[int, int], task: Task, how: Rounds) -> float:
    """The share of channels that goes over all rounds: the ratio, or what meets the target.

    It is looked for in the first round, and once more in the last, which must meet it exactly.
    """
    target = how.target
    if target.ratio is not None or number not in (1, how.count):
        return share
    if target.latency_ms is not None:
        share, said = share_for_latency(plan, target.latency_ms, how.runtime, task.example, task.seed)
        if said is not None:
            task.note(said)
        return share
    if target.params is not None:
        return share_for_size(plan, "parameters", target.params * (before[0] if target.params <= 1 else 1))
    assert target.macs is not None
    return share_for_size(plan, "MACs", target.macs * (before[1] if target.macs <= 1 else 1))


def _settled(
    plan: Plan, share: float, number: int, before: tuple[int, int], task: Task, how: Rounds
) -> tuple[Plan, list[Cut]]:
    """The cuts of this round, all of them tried together; what refuses is kept, and the rest settled again."""
    cuts = plan.cuts(share * number / how.count)
    possible = plan.possible(cuts)
    if possible is not plan:
        possible, share = _possible_share(possible, share, number, before, task, how)
        return _settled(possible, share, number, before, task, how)
    if number == how.count and not cuts and not plan.done:
        way_out = "" if how.choice.widths.multiple == 1 else "; a lower multiple leaves more widths to choose from"
        kept = "; ".join(kept_whole(plan, cuts)) or "it has no layers"
        raise PassError(f"prune: nothing was removed: {kept}{way_out}")
    return plan, cuts


def _cut(net: nn.Module, cuts: Sequence[Cut], task: Task, how: Rounds) -> nn.Module:
    """The network without these channels; with `refit`, what is left of each layer fitted to what it answered."""
    smaller = without(net, cuts)
    if how.refit and cuts:
        for line in refit(smaller, net, cuts, task):
            task.note(line)
    return smaller
