"""Which stretches are replaced by what: chosen under a budget, checked in the whole network.

Legend: B batch, K classes, S one or more axes of pixels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.editing.blocks.candidates import Candidate
from compress.editing.blocks.places import placed, put_block
from compress.editing.blocks.prices import Price
from compress.editing.blocks.program import Choice, Replacement, best, most_saved
from compress.editing.blocks.seen import Overlap
from compress.errors import PassError
from compress.progress import bar
from export.modules import copy_of

ROUNDS = 4
"""How often a choice that costs more than was added up is made anew, with as much more to save."""

UNLIKE = 0.25
"""Of a choice's blocks, the share that the next one does without: one block alone makes no difference to be seen."""


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A trained block, what it loses and what it saves."""

    candidate: Candidate
    error: float
    """Of the block, relative to how much its stretch's answers vary."""
    loss: float
    """Of the overlap (soft Dice) with the trained network's probabilities, with this block alone."""
    saved: float

    def told(self) -> str:
        at = self.candidate.stretch.name
        return f"{at}: {self.candidate.kind} (error {self.error:.3f}, overlap lost {self.loss:.4f})"


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A network with a choice of blocks in it."""

    net: nn.Module
    blocks: tuple[Candidate, ...]
    """Those in it, in order."""
    chosen: tuple[Priced, ...]
    cost: float
    """As measured of the whole network."""
    added_up: float
    """As it was predicted from its parts."""

    @property
    def loss(self) -> float:
        """As it was predicted: the sum of what the blocks lose alone."""
        return sum(each.loss for each in self.chosen)


@torch.no_grad()
def losses(net: nn.Module, found: Sequence[Candidate], images: Sequence[Tensor]) -> list[float]:
    """For each block alone in the network, the overlap that it loses with what the trained network says.

    Blocks in different places add up better so than by their own errors: how much an error matters depends on where it
    is made (Bercovich et al. 2024, Puzzle, arXiv 2411.19146). Unlike an error of the logits, overlap says little
    of pixels whose class is beyond doubt.
    """
    wanted = [net(image) for image in images]
    result = []
    for each in bar(found, "trying blocks", len(found)):
        overlap = Overlap()
        with placed(net, each.stretch.places, each.pieces):
            for image, logits in zip(images, wanted, strict=True):
                overlap.add(net(image), logits)
        result.append(overlap.lost())
    return result


def changed(net: nn.Module, chosen: Sequence[Candidate]) -> tuple[nn.Module, tuple[Candidate, ...]]:
    """A copy of the network with copies of these blocks in it, and the copies."""
    # Together: the layers of a body are those of its block.
    pairs = [copy.deepcopy((each.block, each.body)) for each in chosen]
    copies = tuple(replace(each, block=block, body=body) for each, (block, body) in zip(chosen, pairs, strict=True))
    copied = copy_of(net)
    for each in copies:
        put_block(copied, each.stretch.places, each.pieces)
    return copied.eval(), copies


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a network may cost."""

    price: Price
    whole: float
    """What the network costs as it came, in the unit of the price."""
    target: float
    """What it may cost."""
    example: Tensor

    def check(self, worth: Sequence[tuple[Candidate, float]]) -> None:
        """Whether the target can be reached with these blocks, each with what it saves.

        Raises:
            PassError: if it is met already, or nothing reaches it.
        """
        self._check([_part(each, 0.0, saved) for each, saved in worth])

    def _check(self, parts: Sequence[Replacement]) -> None:
        told = self.price.told
        if self.whole <= self.target:
            raise PassError(
                f"blocks: nothing needs to be replaced: the network has {told(self.whole)}, and {told(self.target)} "
                "are allowed"
            )
        if (least := self.whole - most_saved(parts)) > self.target * (1 + self.price.tolerance):
            raise PassError(
                f"blocks: {told(self.target)} cannot be reached: with the smallest blocks everywhere there are "
                f"{told(least)}; allow more, or give blocks after prune"
            )

    def choices(self, net: nn.Module, found: Sequence[Priced], count: int) -> list[Changed]:
        """The networks with the least predicted loss that cost no more than the target, as measured.

        Raises:
            PassError: if the target is met already, nothing reaches it, or none is measured to cost so little.
        """
        parts = [_part(each.candidate, max(each.loss, 0.0), each.saved) for each in found]
        self._check(parts)
        # What is measured may be missed by a little: the cheapest of all blocks may be just so good.
        needed = min(self.whole - self.target, most_saved(parts))
        nearest = math.inf
        for _ in range(ROUNDS):
            tried = list(self._tried(net, found, best(parts, needed, count, UNLIKE)))
            within = [each for each in tried if each.cost <= self.target * (1 + self.price.tolerance)]
            if within:
                return within
            if not tried:
                break
            nearest = min(nearest, *(each.cost for each in tried))
            needed += nearest - self.target
        raise PassError(
            f"blocks: {self.price.told(self.target)} were not reached: what blocks were measured to save is not saved "
            f"in the whole network; the nearest has {self.price.told(nearest)}"
        )

    def _tried(self, net: nn.Module, found: Sequence[Priced], plans: Sequence[Choice]) -> Iterator[Changed]:
        chosen = [tuple(found[place] for place in plan) for plan in plans]
        made = [changed(net, [each.candidate for each in some]) for some in chosen]
        # In turns with the network as it came: what is timed is compared with what was timed before as shares of it.
        own, *costs = self.price.of_networks([net, *(each for each, _ in made)], self.example)
        for some, (again, blocks), cost in zip(chosen, made, costs, strict=True):
            yield Changed(
                net=again,
                blocks=blocks,
                chosen=some,
                cost=cost * (self.whole / own),
                added_up=self.whole - sum(each.saved for each in some),
            )


def _part(candidate: Candidate, loss: float, saved: float) -> Replacement:
    return Replacement(layers=candidate.stretch.convs, loss=loss, saved=saved)
