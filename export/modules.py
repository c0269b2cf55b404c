"""Modules whoever wrote them: copied, with what Python cannot copy, and put in the place of another."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Precision = Literal["float", "half", "integers"]
"""What a network computes in: 32-bit floating point, 16-bit floating point, or convolutions in 8-bit integers."""
IN_WORDS: Mapping[Precision, str] = {
    "float": "32-bit floating point",
    "half": "16-bit floating point",
    "integers": "8-bit integers",
}

_REFUSALS = (RuntimeError, TypeError, AttributeError, NotImplementedError, pickle.PicklingError)
_COPIED = (nn.Module, Tensor, bool, int, float, str, type(None))


def precision_of(net: nn.Module) -> Precision:
    """What a network says that it computes in; one that says nothing of it computes in float."""
    said = getattr(net, "precision", None)
    return said if isinstance(said, str) and said in get_args(Precision) else "float"  # type: ignore[return-value]


def has_signs(net: nn.Module) -> bool:
    """Whether convolutions of a network read signs, so that their sums are counts of bits."""
    return any(getattr(module, "reads_signs", False) for module in net.modules())


def copy_of(net: nn.Module, instead: Iterable[tuple[Tensor, Tensor]] = ()) -> nn.Module:
    """A copy of a network; what it keeps beside its tensors and cannot be copied is shared with it.

    Args:
        instead: pairs of a tensor of the network, and what the copy has in all of its places.
    """
    stands = {id(old): _like(old, new) for old, new in instead}
    try:
        return copy.deepcopy(net, dict[int, Any](stands))
    except _REFUSALS:
        return copy.deepcopy(net, _shared(net) | stands)


def _like(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _shared(net: nn.Module) -> dict[int, Any]:
    """What stands for values that copy.deepcopy refuses, by their identity."""
    stands: dict[int, Any] = {}
    for value in _kept(net):
        if isinstance(value, Tensor) and not value.is_leaf:
            # Computed in a call that was learnt from: the next call computes it anew.
            stands[id(value)] = value.detach().clone()
        elif not isinstance(value, _COPIED) and not _can_be_copied(value):
            stands[id(value)] = value
    return stands


def _kept(net: nn.Module) -> Iterator[Any]:
    for module in net.modules():
        yield from module._buffers.values()
        yield from (leaf for key, value in vars(module).items() if key[0] != "_" for leaf in tree_leaves(value))


def _can_be_copied(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except _REFUSALS:
        return False
    return True


def put(net: nn.Module, names: Iterable[str], new: nn.Module) -> None:
    """Put a layer under these names of one that is there, and into the lists beside them that a network keeps of it."""
    for name in names:
        old = net.get_submodule(name)
        net.set_submodule(name, new)
        for module in net.modules():
            for key, value in vars(module).items():
                if not key.startswith("_"):
                    vars(module)[key] = _with(value, old, new)


def _with(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """What a network keeps in a plain attribute, one layer in it replaced; lists and mappings stay the same objects."""
    if value is old:
        return new
    if isinstance(value, list):
        value[:] = [_with(one, old, new) for one in value]
    elif isinstance(value, dict):
        value.update({key: _with(one, old, new) for key, one in value.items()})
    elif isinstance(value, tuple):
        again = tuple.__new__(type(value), (_with(one, old, new) for one in value))
        if hasattr(value, "__dict__"):
            vars(again).update(vars(value))
        return again
    return value
