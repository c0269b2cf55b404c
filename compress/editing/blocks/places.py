"""A block put in the place of a stretch, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from export.modules import put


def in_first(block: nn.Module, places: Sequence[Sequence[str]]) -> tuple[nn.Module, ...]:
    """The pieces of a block that takes the first of these places, and leaves nothing in the others."""
    return (block, *(nn.Identity() for _ in places[1:]))


def put_block(net: nn.Module, places: Sequence[Sequence[str]], pieces: Sequence[nn.Module]) -> None:
    """Put a piece where each of these modules is."""
    for names, piece in zip(places, pieces, strict=True):
        put(net, names, piece)


@contextmanager
def placed(net: nn.Module, places: Sequence[Sequence[str]], pieces: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """While open, the network has the pieces of a block where these modules are."""
    own = [net.get_submodule(names[0]) for names in places]
    put_block(net, places, pieces)
    try:
        yield net
    finally:
        put_block(net, places, own)
