"""Convolutions and linear layers as products of thinner ones: Tucker-2, CP, and two singular value decompositions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from compress.data.dataset.cases import Role
from compress.editing.activations import Images, fitted, inputs_to_fit, reconstruction_pairs
from compress.editing.decomposition.cp import Unstable
from compress.editing.decomposition.layer import Decomposition, Size, difference, ranks_for_target, too_costly
from compress.editing.decomposition.ranks import Array, by_energy, vbmf_rank
from compress.editing.decomposition.thin_layers import Method, Ranks, method_for, sides
from compress.editing.layer_replacement import (
    CONVS,
    TRANSPOSED,
    Site,
    SkippedSites,
    chosen,
    copied,
    finite,
    macs,
    not_plain,
    parameters,
    sites,
    swap,
)
from compress.editing.least_squares import refit
from compress.progress import bar
from compress.storage.description import described
from export.modules import Precision

if TYPE_CHECKING:
    from compress.task import Task

Share = Annotated[float, Field(gt=0, le=1)]
PLAIN = (*CONVS, *TRANSPOSED, nn.Linear)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Lowrank:
    """Thin layers in a row for each layer; the fewer ranks, the fewer multiply-accumulates.

    Give at most one of `rank`, `energy`, `macs` and `params`. With none, each layer's ranks are what
    is not noise in its kernel: the analytic solution of variational Bayesian matrix factorization
    (Nakajima et al. 2013, JMLR 14), as Kim et al. propose for Tucker-2.
    """

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    how: Method = "tucker"
    """tucker: 1x1, k x k, 1x1 (Kim et al. 2016, arXiv 1511.06530). cp: 1x1, one depthwise convolution along each
    axis, 1x1 (Lebedev et al. 2015, arXiv 1412.6553). svd: k x k to R channels, then 1x1 (Zhang et al. 2016,
    arXiv 1505.06798). spatial: k x 1 to R channels, then 1 x k (Jaderberg et al. 2014, arXiv 1405.3866).
    A 1x1 or linear layer has one decomposition, the singular value one, whichever is asked for."""
    where: str | tuple[str, ...] = "*"
    """Which layers: names (`head`), modules (`decoder.3`) or patterns (`encoder.*.0`)."""
    rank: Annotated[int, Field(ge=1)] | Share | None = None
    """The ranks themselves: a whole number (no more than a layer has), or a share of its full ranks."""
    energy: Share | None = None
    """Share of the kernel's squared singular values that the ranks keep, in each unfolding."""
    macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What share of the network's multiply-accumulates should be left; every layer keeps the same energy."""
    params: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What share of the network's parameters should be left; every layer keeps the same energy."""
    at_least: Annotated[int, Field(ge=1)] = 16
    """Layers with fewer input or output channels stay: there is little to save, and first and last layers lose most."""
    most_error: Annotated[float, Field(gt=0, le=1)] = 0.9
    """A layer stays whose answer to noise would change by more than this, relative to its size, before any fit."""
    refit: bool = True
    """Fit the last of the layers that take a layer's place to what it answered on calibration cases, inputs taken
    from the network as changed so far. Not done where svd decomposes a transposed convolution."""
    calibrate: Annotated[int, Field(ge=1)] | None = None
    """How many calibration cases to fit to; None uses all that the data sets aside."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in ("rank", "energy", "macs", "params") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are rules for the same ranks; give one of them")
        return self

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",) if self.refit else ()

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network with decomposed layers.

        Raises:
            PassError: if `where` names no layer, a target cannot be reached, no layer was replaced (with the
                reasons), or there are too few calibration cases.
        """
        original, net = copied(net, "lowrank"), copied(net, "lowrank")
        kept, replaced = SkippedSites(word="lowrank"), []
        inputs: Images = inputs_to_fit(task, self.calibrate, "lowrank") if self.refit else tuple
        whole = Size(macs=macs(net, [task.example.shape]), params=parameters(net))
        found = self._decompositions(net, task, kept)
        plan = list(zip(found, self._ranks(found, whole), strict=True))
        for decomposition, ranks in bar(plan, "decomposing", len(plan)):
            site = decomposition.site
            reason = too_costly(decomposition, ranks) or self._replaced(net, decomposition, ranks, task)
            if reason is not None:
                kept.add(site.name, reason)
                continue
            replaced.append(f"{site.name} {'x'.join(map(str, ranks))}")
            if self.refit and not (decomposition.transposed and decomposition.method == "svd"):
                refit(net, site, reconstruction_pairs(net, original, site, inputs), "lowrank")
        if not replaced:
            raise kept.nothing_done("no layer was replaced")
        left = Size(macs=macs(net, [task.example.shape]), params=parameters(net))
        task.note(
            f"lowrank: {len(replaced)} layers decomposed by {self.how}, with their ranks: {', '.join(replaced)}; "
            f"{left.macs / whole.macs:.0%} of the multiply-accumulates and {left.params / whole.params:.0%} of the "
            "parameters are left"
        )
        if self.refit:
            task.note(fitted("lowrank", net, original, inputs()))
        for line in kept.lines():
            task.note(line)
        return described(net)

    def _decompositions(self, net: nn.Module, task: Task, kept: SkippedSites) -> list[Decomposition]:
        found = []
        kinds = (nn.modules.conv._ConvNd, nn.Linear)
        for site in chosen(sites(net, task.example, kinds), self.where, "lowrank"):
            reason = not_plain(site, net, PLAIN) or self._unfit(site)
            if reason is None:
                found.append(Decomposition(site=site, method=method_for(site.module, self.how)))
            else:
                kept.add(site.name, reason)
        return found

    def _unfit(self, site: Site) -> str | None:
        module: Any = site.module
        if getattr(module, "groups", 1) > 1:
            return "a convolution in groups is thin already"
        if min(sides(module)) < self.at_least:
            return f"fewer than {self.at_least} input or output channels"
        if isinstance(module, TRANSPOSED) and method_for(module, self.how) in ("cp", "spatial"):
            return f"{self.how} does not decompose a transposed convolution; tucker and svd do"
        if not finite(module) or not module.weight.any():
            return "its weights are zero or not finite"
        return None

    def _ranks(self, found: Sequence[Decomposition], whole: Size) -> list[Ranks]:
        if self.macs is not None:
            return ranks_for_target(found, "macs", whole.macs, self.macs)
        if self.params is not None:
            return ranks_for_target(found, "params", whole.params, self.params)
        return [each.ranks(self._rule) for each in bar(found, "choosing ranks", len(found))]

    def _rule(self, spectrum: Array, shape: tuple[int, int]) -> int:
        if isinstance(self.rank, int):
            return min(self.rank, len(spectrum))
        if self.rank is not None:
            return max(1, round(self.rank * len(spectrum)))
        if self.energy is not None:
            return by_energy(spectrum, self.energy)
        return vbmf_rank(spectrum, shape)

    def _replaced(self, net: nn.Module, decomposition: Decomposition, ranks: Ranks, task: Task) -> str | None:
        try:
            new = decomposition.decomposed(ranks, bias=self.refit, seed=task.seed)
        except Unstable as unstable:
            return str(unstable)
        if not difference(decomposition.site.module, new, decomposition.site.inputs[0]) <= self.most_error:
            return f"its answer to noise would change by more than {self.most_error:g} of its size (most_error)"
        return swap(net, decomposition.site, new, task.example)
