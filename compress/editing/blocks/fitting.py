"""Blocks fitted by least squares to what their stretches answered: each apart, and behind each other in the network.

Legend: B batch, C channels, S one or more axes of pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from compress.editing.activations import Images, reconstruction_pairs
from compress.editing.blocks.candidates import Candidate
from compress.editing.blocks.seen import Seen, into_of, seen_at
from compress.editing.blocks.stretches import NORMS
from compress.editing.layer_replacement import CONVS, TRANSPOSED, Site, sites
from compress.editing.least_squares import PLAIN, WIDEST, Lost, fit_layer, inside, refit, refit_as_before, rows_for
from compress.errors import PassError
from compress.progress import bar


@torch.no_grad()
def begin(candidate: Candidate, remembered: Sequence[Seen]) -> None:
    """Bring a block, in place, as near to what its stretch answers as its layers allow without training.

    Raises:
        PassError: if what the stretch sees or gives is not finite.
    """
    try:
        _begin(candidate, remembered)
    except PassError:
        # Layers of a stretch alone have names that say nothing to a reader.
        at = candidate.stretch.name
        raise PassError(
            f"blocks: what {at} sees or gives is not finite on the train cases; check the weights"
        ) from None


def _begin(candidate: Candidate, remembered: Sequence[Seen]) -> None:
    if candidate.thinned is not None:
        fits = _Fits(
            net=candidate.block,
            original=candidate.stretch.alone,
            lost=candidate.thinned.lost,
            swapped=candidate.thinned.swapped,
            fresh=(),
            inputs=lambda: (seen.into for seen in remembered),
            cases=len(remembered),
        )
        fits.done()
    elif candidate.body is not None:
        _take_over(candidate)
        settle(nn.Sequential(*candidate.body.layers), (seen.into for seen in remembered))
        _fit_last(candidate, remembered)


@torch.no_grad()
def mend(net: nn.Module, blocks: Sequence[Candidate], original: nn.Module, images: Sequence[Tensor]) -> None:
    """Fit the layers of a network from its first block on, in order, to what they answered in the trained network.

    A layer that sees what those before it give mends what they miss (Zhang et al. 2016, arXiv 1505.06798, section 3.3).

    Args:
        net: has the blocks in it.
    """
    thinned = [(each.stretch.places, each.thinned) for each in blocks if each.thinned is not None]
    fits = _Fits(
        net=net,
        original=original,
        lost={(_named(places, name), axis): gone for places, one in thinned for (name, axis), gone in one.lost.items()},
        swapped=[_named(places, name) for places, one in thinned for name in one.swapped],
        fresh=[each for each in blocks if each.thinned is None],
        inputs=lambda: images,
        cases=len(images),
    )
    fits.done("fitting layers together")


def _named(places: Sequence[Sequence[str]], name: str) -> str:
    """The name in the network of what is called so in a stretch alone."""
    if len(places) == 1:
        return f"{places[0][0]}.{name}"
    place, _, rest = name.partition(".")
    return f"{places[int(place)][0]}.{rest}".rstrip(".")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fits:
    """What is fitted in a changed network, or in a block, to which answers of the trained one."""

    net: nn.Module
    original: nn.Module
    lost: Lost
    swapped: Collection[str]
    """The names of layers of the original in the place of which there are several in a row."""
    fresh: Sequence[Candidate]
    """Blocks whose layers are not those of the original."""
    inputs: Images
    cases: int
    """How many `inputs` gives."""

    def done(self, what: str | None = None) -> None:
        """Fit each layer from the first one that reads something else than before, in the order of their calls.

        Args:
            what: on its progress bar; none where it is a part of what another bar tells of.
        """
        begun, found = False, sites(self.net, next(iter(self.inputs())), PLAIN)
        for site in found if what is None else bar(found, what, len(found)):
            owner = next((name for name in self.swapped if site.name.startswith(f"{name}.")), None)
            if site.module in self._within:
                begun = True
                self._fit_fresh(site)
            elif owner is not None:
                begun = True
                self._fit_swapped(site, owner)
            elif begun or inside(site.module) != inside(self.original.get_submodule(site.name)):
                begun = True
                refit_as_before(self.net, self.original, site, self.lost, self.inputs, self.cases, "blocks")

    @cached_property
    def _within(self) -> Mapping[nn.Module, Candidate]:
        return {part: each for each in self.fresh for part in each.block.modules()}

    def _fit_fresh(self, site: Site) -> None:
        block = self._within[site.module]
        if block.body is None or block.body.last is not site.module:
            return
        seen = [
            replace(seen_at(self.original, block.stretch, image), into=into_of(self.net, block.block, image))
            for image in self.inputs()
        ]
        _fit_last(block, seen)

    def _fit_swapped(self, site: Site, owner: str) -> None:
        row: Any = self.net.get_submodule(owner)
        if row[-1] is site.module:
            at = Site(names=(owner,), module=row, inputs=site.inputs)
            pairs = reconstruction_pairs(self.net, self.original, at, self.inputs)
            refit(self.net, at, pairs, "blocks", rows_for(row[-1], self.cases))


def _take_over(candidate: Candidate) -> None:
    """Let the first convolution, and the norm behind it, begin as the stretch's own where they are of one shape."""
    assert candidate.body is not None
    fresh, own = (
        [part for part in layers if isinstance(part, (*CONVS, *NORMS))]
        for layers in (candidate.body.layers, candidate.stretch.alone.modules())
    )
    for layer, trained in zip(fresh[:2], own[:2], strict=False):
        theirs = dict(trained.named_parameters())
        if any(name not in theirs or theirs[name].shape != one.shape for name, one in layer.named_parameters()):
            break
        for name, one in layer.named_parameters():
            one.copy_(theirs[name])


def _fit_last(candidate: Candidate, remembered: Sequence[Seen]) -> None:
    assert candidate.body is not None
    before, last = nn.Sequential(*candidate.body.layers), candidate.body.last
    if last is None or not _can_be_fitted(last):
        return
    pairs = ((before(seen.into), _wanted(candidate, seen)) for seen in remembered)
    fit_layer(last, pairs, candidate.stretch.name, "blocks", rows_for(last, len(remembered)))


def _wanted(candidate: Candidate, seen: Seen) -> Tensor:
    """What the last convolution should answer."""
    assert candidate.body is not None
    if not candidate.body.shortcut:
        return seen.wanted
    normed = seen.wanted
    for layer in candidate.stretch.tail:
        normed = layer(normed) if isinstance(layer, NORMS) else normed
    return normed - seen.into


def _can_be_fitted(layer: Any) -> bool:
    if isinstance(layer, TRANSPOSED):
        return True
    return isinstance(layer, CONVS) and layer.groups == 1 and layer.weight[0].numel() <= WIDEST


@torch.no_grad()
def settle(body: nn.Module, inputs: Iterator[Tensor]) -> None:
    """Give fresh batch norms the mean statistics of what they see."""
    norms: list[Any] = [part for part in body.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # Without a momentum they keep the mean of all batches.
        norm.momentum = None
        norm.train()
    for into in inputs:
        if into.shape[2:].numel() > 1:
            body(into)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    body.eval()
