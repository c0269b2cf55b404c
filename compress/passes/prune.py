"""Structural pruning: whole channels go, and an ordinary, smaller network stays.

Which channels go together is editing/pruning/dependency's matter; how much each is worth is importance.py's beside it,
and which of them go, to which widths, plan.py's. torch-pruning's dependency graph is not used: it freezes what a
one-channel gate multiplies, fails on norms without weights, and moves channels across a shuffle without saying so
(benchmarks/pruning.md).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from compress.data.dataset.cases import Role
from compress.editing.budget import Share, ToABudget
from compress.editing.pruning.importance import GRADIENTS, Criterion
from compress.editing.pruning.plan import Choice, Scope, Widths
from compress.editing.pruning.rounds import Rounds, Target, pruned
from compress.passes.distill import Distill
from compress.storage.description import described
from export.modules import Precision

if TYPE_CHECKING:
    from compress.task import Task


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Prune(ToABudget):
    """Remove the least important channels: a share of them, or as many as a target asks for."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"
    budgets: ClassVar[tuple[str, ...]] = ("ratio", *ToABudget.budgets)

    ratio: Share | None = None
    """Share of the channels that goes; half of the channels is about a quarter of the MACs."""
    by: Criterion = "l2"
    """What makes a channel important: the norm of its weights (Li et al. 2017, arXiv 1608.08710); the scale
    of its norm (Liu et al. 2017, arXiv 1708.06519); the loss it changes, to first order (Molchanov et al.
    2019, arXiv 1906.10771) or to second (LeCun et al. 1990), on train cases; its distance from the other
    filters (He et al. 2019, arXiv 1811.00250); its norm against those of the larger ones (Lee et al. 2021,
    arXiv 2010.07611); what it adds to the channels before it, on calibration cases (Chee et al. 2022,
    arXiv 2108.00065; with `refit` it is their method); chance, to compare with."""
    scope: Scope = "local"
    """local takes the same share from every layer; global the least important channels of them all."""
    multiple: Annotated[int, Field(ge=1)] | None = None
    """Widths that are cut are rounded to multiples of this. None: to multiples of 16, and to 8. CPUs with AVX-512
    work in blocks of 16 channels, those with AVX2 of 8: 24 channels take the time of 32, and 40 more than 48
    (benchmarks/pruning.md); tensor cores take 8-bit integers in sixteens, 16-bit floats in eights."""
    most: Share = 0.9
    """The largest share of any one layer's channels that may go."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    """Rounds of equal size, importance measured anew in each."""
    recover: Distill | None = None
    """Training between two rounds: the options of `distill`, such as `{epochs: 1}`."""
    keep: tuple[str, ...] = ()
    """Layers that keep all their output channels: names (`head`), modules (`decoder.3`) or patterns."""
    refit: bool = False
    """Whether the layers behind the cut ones are fitted to what they answered before, on calibration cases."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.ratio is not None and self.scope == "local" and self.ratio > self.most:
            raise ValueError(f"ratio {self.ratio} is more than most, {self.most}, allows; lower ratio or raise most")
        if self.recover is not None and self.rounds == 1:
            raise ValueError("recover is done between rounds: raise rounds, or give a distill step after prune")
        return self

    @property
    def uses(self) -> tuple[Role, ...]:
        found: list[Role] = ["calibration"] if self.refit or self.by == "interpolative" else []
        if self.recover is not None:
            return (*found, *self.recover.uses)
        return (*found, "train") if self.by in GRADIENTS else tuple(found)

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """A network with fewer channels; its input and output are as wide as before.

        Raises:
            PassError: if nothing can be removed, a target cannot be met, or `keep` names no layer.
        """
        smaller = self.smaller(net, task)
        return described(smaller)

    def smaller(self, net: nn.Module, task: Task) -> nn.Module:
        """The same, not yet described: for a network that was not made from a description."""
        return pruned(net, task, self._rounds)

    @property
    def _rounds(self) -> Rounds:
        widths = Widths(multiple=self.multiple, most=self.most)
        return Rounds(
            choice=Choice(by=self.by, scope=self.scope, widths=widths, keep=self.keep),
            target=Target(
                ratio=self.ratio,
                macs=self.macs,
                params=self.params,
                latency_ms=self.latency_ms,
                latency=self.latency,
            ),
            runtime=self.runtime,
            count=self.rounds,
            refit=self.refit,
            recover=self._recovered,
        )

    def _recovered(self, net: nn.Module, task: Task, number: int) -> nn.Module:
        if self.recover is None:
            return net
        folder = None if task.folder is None else task.folder / f"round-{number}"
        return self.recover(described(net), dataclasses.replace(task, folder=folder)).eval()
