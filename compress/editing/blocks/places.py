"""A block put in the place of a stretch, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from export.modules import put


def put_block(net: nn.Module, places: Sequence[Sequence[str]], block: nn.Module) -> None:
    """Put a block where the first of these modules is, and nothing where the others are."""
    first, *others = places
    put(net, first, block)
    for names in others:
        put(net, names, nn.Identity())


@contextmanager
def placed(net: nn.Module, places: Sequence[Sequence[str]], block: nn.Module) -> Iterator[nn.Module]:
    """While open, the network has a block where these modules are."""
    own = [net.get_submodule(names[0]) for names in places]
    put_block(net, places, block)
    try:
        yield net
    finally:
        for names, module in zip(places, own, strict=True):
            put(net, names, module)
