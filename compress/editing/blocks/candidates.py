"""The small blocks that may take a stretch's place: of every kind that a recipe names, those that fit its ends."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from compress.editing.blocks.own_layers import Images, Own
from compress.editing.blocks.places import in_first
from compress.editing.blocks.stretches import NORMS, Stretch
from compress.measure.macs import macs_of
from compress.networks.blocks.ends import Body, Kind, Thinned, Thinner
from compress.networks.blocks.sum import Sum
from export.errors import REFUSALS
from export.registry import named, words

KINDS = "compress.networks.blocks.kinds"
"""The folder that is the list of kinds."""
Space = Sequence[str | Mapping[str, Any]]
"""Words of kinds, alone in their usual sizes, or with options."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One block in one place."""

    stretch: Stretch
    kind: str
    """Its word and options, as in a recipe."""
    block: nn.Module
    body: Body | None
    """What is fresh in it, with the norm and the activation of the stretch behind it; None where it is `thinned`."""
    thinned: Thinned | None
    """How its layers became thinner; None where they are fresh."""
    macs: int
    params: int

    @property
    def learns(self) -> bool:
        """Whether there is anything in it to train."""
        return self.body is None or self.body.last is not None

    @property
    def pieces(self) -> tuple[nn.Module, ...]:
        """What takes each of the stretch's places."""
        places = self.stretch.places
        several = self.thinned is not None and len(places) > 1
        return tuple(self.block.children()) if several else in_first(self.block, places)


Kinds = Sequence[tuple[str, Kind | Thinner]]
"""Each with its name: the word and its options."""


def kinds(space: Space | None) -> list[tuple[str, Kind | Thinner]]:
    """The kinds of a space, each with its name; None takes all there are, in their usual sizes.

    Raises:
        ValueError: if a word is no kind, or does not take these options.
    """
    return [pair for step in (words(KINDS) if space is None else space) for pair in _of_step(step)]


def _of_step(step: str | Mapping[str, Any]) -> Iterator[tuple[str, Kind | Thinner]]:
    given = {step: None} if isinstance(step, str) else step
    if len(given) != 1:
        raise ValueError(f"space: {given!r} is not one word and its options")
    ((word, options),) = given.items()
    if word not in words(KINDS):
        raise ValueError(f"space: there is no kind '{word}'; there are {', '.join(words(KINDS))}")
    kind = named(KINDS, word)
    for each in kind.usual if options is None else (options,):
        try:
            yield _told(word, each), kind(**each)
        except (ValidationError, TypeError) as error:
            said = error.errors()[0] if isinstance(error, ValidationError) else {"msg": "takes options by name"}
            where = ".".join(map(str, said.get("loc", ())))
            raise ValueError(f"space: {word}: {where}: {said['msg']}") from None


def _told(word: str, options: Mapping[str, Any]) -> str:
    return " ".join([word, *(f"{name} {value}" for name, value in options.items())])


def candidates(stretch: Stretch, chosen: Kinds, seed: int, inputs: Images) -> list[Candidate]:
    """The blocks of these kinds that give what the stretch gives, as they begin; the same each time.

    Args:
        inputs: what goes into the stretch on some cases, for kinds that choose from its own channels.
    """
    own, found = Own(stretch=stretch, inputs=inputs, seed=seed), list[Candidate]()
    for name, kind in chosen:
        body = thinned = None
        if isinstance(kind, Thinner):
            thinned = kind.thinned(own)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(f"{seed} {stretch.name} {name}".encode()))
                body = kind(stretch.ends)
        block = thinned.block if thinned else assembled(body, stretch.tail) if body else None
        if thinned is not None and any(str(each.block) == str(block) for each in found if each.thinned):
            # Of few channels several shares are the same number.
            continue
        if block is not None and (macs := _macs(block.eval(), stretch)) is not None:
            params = sum(tensor.numel() for tensor in block.parameters())
            found.append(
                Candidate(stretch=stretch, kind=name, block=block, body=body, thinned=thinned, macs=macs, params=params)
            )
    return found


def assembled(body: Body, tail: Sequence[nn.Module]) -> nn.Module:
    """The block: what is learned anew, with a copy of the norm and the activation that come behind it.

    Behind a sum no norm is left: there is no convolution that it could be folded into.
    """
    if body.last is None:
        return nn.Identity()
    layers = [*body.layers, body.last]
    core = [Sum(nn.Sequential(*layers), nn.Identity())] if body.shortcut else layers
    behind = [layer for layer in tail if not (body.shortcut and isinstance(layer, NORMS))]
    return nn.Sequential(*core, *copy.deepcopy(behind))


def _macs(block: nn.Module, stretch: Stretch) -> int | None:
    """Multiply-accumulates of one image; None if what comes out has another shape than what the stretch gives."""
    ends, image = stretch.ends, torch.zeros(stretch.into)
    wanted = tuple(-(-side // down) * up for side, down, up in zip(stretch.into[2:], ends.down, ends.up, strict=True))
    try:
        with torch.no_grad():
            out = block(image)
    except REFUSALS:
        # A norm over one pixel, or a kernel larger than what there is.
        return None
    return macs_of(block, image) if tuple(out.shape) == (stretch.into[0], ends.after, *wanted) else None
