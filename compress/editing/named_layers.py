"""Layers that a recipe names, by their names, by a module that they are in, or by a pattern; and tensors by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import Tensor, nn

from compress.errors import PassError


def named(layer: str, patterns: Sequence[str]) -> bool:
    """Whether one of the names, modules (`decoder.3`) or patterns (`encoder.*.0`) means this layer."""
    # Only here: importing it takes time and memory, and building a changed network again has no use for it.
    from export.quantization.placement import matches

    return any(matches(layer, pattern) for pattern in patterns)


def check_keep(keep: Sequence[str], layers: Sequence[str], word: str) -> None:
    """Check that the option `keep` of a pass names layers.

    Raises:
        PassError: if one of its names means none.
    """
    for pattern in keep:
        if not any(named(layer, (pattern,)) for layer in layers):
            near = difflib.get_close_matches(pattern, layers, n=1, cutoff=0.3)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(layers[:8])}, ..."
            raise PassError(f"{word}: keep '{pattern}' names no layer; {hint}")


def tensor_of(net: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its name."""
    owner, _, last = name.rpartition(".")
    tensor = getattr(net.get_submodule(owner), last)
    assert isinstance(tensor, Tensor)
    return tensor
