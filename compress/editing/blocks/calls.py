"""Which modules a network calls, on what, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a module; the tensors are those of the network, not copies."""

    module: nn.Module
    begun: int
    ended: int
    """Places in the order of all beginnings and ends."""
    into: Tensor | None
    """None where it takes more than one tensor, or something else."""
    out: Tensor | None
    changes_input: bool
    """Whether it works in place on what it is given."""

    def holds(self, other: Call) -> bool:
        """Whether the other call happens during this one."""
        return self.begun <= other.begun and other.ended <= self.ended


@torch.no_grad()
def calls_of(net: nn.Module, image: Tensor) -> list[Call]:
    """Every call of every module in the order of their beginnings, the network's own first."""
    found: list[Call] = []
    waiting: list[tuple[nn.Module, int, Tensor | None, int]] = []
    clock = iter(range(10**9))

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        into = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) else None
        waiting.append((module, next(clock), into, 0 if into is None else into._version))

    def after(module: nn.Module, _: Any, __: Mapping[str, Any], out: Any) -> None:
        called, begun, into, version = waiting.pop()
        assert called is module, "calls end in the order in which they began"
        found.append(
            Call(
                module=module,
                begun=begun,
                ended=next(clock),
                into=into,
                out=out if isinstance(out, Tensor) else None,
                changes_input=into is not None and into._version != version,
            )
        )

    handles: list[Any] = []
    try:
        for module in net.modules():
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        net(image.clone())
    finally:
        for handle in handles:
            handle.remove()
    return sorted(found, key=lambda call: call.begun)


def chains(leaves: Sequence[Call]) -> list[list[Call]]:
    """Calls of layers in a row, each of which takes what the one before it gives, and nothing else."""
    found: list[list[Call]] = []
    for call in leaves:
        if found and call.into is not None and call.into is found[-1][-1].out:
            found[-1].append(call)
        else:
            found.append([call])
    return found
