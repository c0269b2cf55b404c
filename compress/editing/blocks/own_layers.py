"""The trained layers of a stretch, made thinner: as `prune`, `depthwise` and `lowrank` do it, in the stretch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from compress.editing.blocks.stretches import Stretch
from compress.editing.decomposition.cp import Unstable
from compress.editing.decomposition.layer import Decomposition, too_costly
from compress.editing.decomposition.separation import separated
from compress.editing.decomposition.thin_layers import Ranks, method_for
from compress.editing.layer_replacement import CONVS, Site, cost, finite, not_plain, sites
from compress.editing.pruning.interpolative import interpolative_scores
from compress.editing.pruning.plan import Choice, Plan, Widths
from compress.editing.pruning.removal import positions, without
from compress.editing.pruning.trial import kept, prunable, trial_of
from compress.errors import ExportError
from compress.networks.blocks.ends import Decomposed, Thinned
from export.modules import copy_of, put

Images = Callable[[], Iterable[Tensor]]
FEWER_MACS = 1.1
"""A layer is replaced where this many times fewer multiply-accumulates come of it."""
FEW = 8
"""Channels; what has more is narrowed to multiples of it."""
MOST = 0.95
"""The largest share of a layer's channels that may go."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Own:
    """The layers of one stretch, and what goes into it on some cases."""

    stretch: Stretch
    inputs: Images
    seed: int

    def narrowed(self, share: float) -> Thinned | None:
        """Channels are taken greedily, each time that from which most of the others can be computed."""
        if self._plan is None:
            return None
        cuts = self._plan.cuts(1 - share)
        if (possible := self._plan.possible(cuts)) is not self._plan:
            cuts = possible.cuts(1 - share)
        if not cuts:
            return None
        return Thinned(block=without(self.stretch.alone, cuts), lost=positions(cuts))

    def separated(self, rank: int) -> Thinned | None:
        """The rank-1 parts of what each input channel is seen through."""

        def thin(site: Site) -> nn.Module | None:
            conv: Any = site.module
            positions = conv.weight[0, 0].numel()
            if positions == 1 or rank >= min(positions, conv.out_channels):
                return None
            return separated(conv, rank, bias=True)

        return self._swapped(thin)

    def decomposed(self, how: Decomposed, rank: float) -> Thinned | None:
        """Ranks are the same share of the full ones in each layer."""

        def thin(site: Site) -> nn.Module | None:
            layer = Decomposition(site=site, method=method_for(site.module, how))
            ranks: Ranks = layer.ranks(lambda spectrum, _: max(1, round(rank * len(spectrum))))
            if too_costly(layer, ranks) is not None:
                return None
            try:
                return layer.decomposed(ranks, bias=True, seed=self.seed)
            except Unstable:
                return None

        return self._swapped(thin)

    def _swapped(self, thin: Callable[[Site], nn.Module | None]) -> Thinned | None:
        block, names = copy_of(self.stretch.alone), list[str]()
        for site in sites(block, torch.zeros(self.stretch.into), CONVS):
            if not_plain(site, block, CONVS) or getattr(site.module, "groups", 1) > 1 or not finite(site.module):
                continue
            new = thin(site)
            if new is not None and cost(new, site.inputs) * FEWER_MACS < cost(site.module, site.inputs):
                put(block, site.names, new)
                names.append(site.name)
        return Thinned(block=block, lost={}, swapped=names) if names else None

    @cached_property
    def _plan(self) -> Plan | None:
        """Which channels lie between the layers, and what each is worth; None where they cannot be told."""
        alone = self.stretch.alone
        trial = trial_of(alone, torch.zeros(self.stretch.into))
        try:
            bundles, flow = prunable(trial)
        except ExportError:
            return None
        scores = interpolative_scores(alone, bundles, self.inputs())
        bundles = [
            kept(one, "nothing mixes its channels") if one.group.prunable and score is None else one
            for one, score in zip(bundles, scores, strict=True)
        ]
        widths = Widths(multiple=FEW if self.stretch.ends.inner > FEW else 1, most=MOST)
        return Plan(
            choice=Choice(by="interpolative", scope="local", widths=widths),
            net=alone,
            trial=trial,
            bundles=bundles,
            flow=flow,
            scores=[torch.empty(0) if score is None else score for score in scores],
            began={one.key: one.group.channels for one in bundles if one.group.prunable},
        )
