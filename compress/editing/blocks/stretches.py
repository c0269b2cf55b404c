"""The stretches of a trained network that one small block may take the place of, and why others may not.

A stretch has one tensor that goes in and one that comes out: a module that holds convolutions (a double convolution, a
residual block, a stage), or some convolutions in a row, each with the norm and activation behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.editing.blocks.calls import Call, calls_of, chains
from compress.editing.blocks.places import in_first, placed
from compress.editing.layer_replacement import CONVS, TRANSPOSED, SkippedSites
from compress.measure.macs import macs_of
from compress.networks.blocks.ends import Ends
from compress.progress import bar
from compress.storage.changed import can_be_written
from export.errors import REFUSALS, first_line

MOST_UNITS = 3
"""Convolutions in a row that are one stretch, at most; longer ones are stretches where they are a module."""
WHOLE = 0.75
"""A stretch with more of the network's multiply-accumulates than this is a network, and a block no match for it."""
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish)
_DROPOUTS = nn.modules.dropout._DropoutNd


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """A part of a network with one way in and one way out."""

    places: tuple[tuple[str, ...], ...]
    """The modules that it consists of, each by every name that it has; a block takes the place of the first."""
    modules: tuple[nn.Module, ...]
    into: torch.Size
    ends: Ends
    convs: frozenset[str]
    """The names of its convolutions: of two stretches with one in common only one can be replaced."""
    tail: tuple[nn.Module, ...]
    """The norm and the activation at its end, which stay; none where something else is there."""
    begun: int
    """Its place in the order in which parts of the network begin."""
    macs: int
    params: int

    @property
    def alone(self) -> nn.Module:
        """The trained layers by themselves; these are those of the network, not copies."""
        return self.modules[0] if len(self.modules) == 1 else nn.Sequential(*self.modules)

    @property
    def name(self) -> str:
        """As it is told: `encoder.1`, or the first and the last of several modules."""
        first, last = self.places[0][0], self.places[-1][0]
        return first if first == last else f"{first} to {last}"


def stretches(net: nn.Module, image: Tensor, kept: SkippedSites) -> list[Stretch]:
    """The stretches of a network in evaluation mode, in the order in which they begin.

    Args:
        image: a real input: what is never below zero on it ends in a ReLU.
        kept: is told of the modules with convolutions that are none, and why.
    """
    search = _Search(net, image)
    found: dict[frozenset[str], Stretch] = {}
    candidates = list(search.candidates(kept))
    for calls in bar(candidates, "looking for stretches", len(candidates)):
        if search.convs(calls) in found:
            continue
        reason, ends = search.looked_at(calls)
        reason = reason or search.disturbed(calls)
        if reason is not None:
            if not search.is_several(calls):
                # Of convolutions in a row each is told of by itself.
                kept.add(search.name(calls), reason)
        elif ends is not None:
            stretch = search.stretch(calls, ends)
            found[stretch.convs] = stretch
    return list(found.values())


class _Search:
    """One run of the network, and what it says of the calls in it."""

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        self.net, self.image = net, image
        self.calls = calls_of(net, image)
        self.names: dict[nn.Module, list[str]] = {}
        for name, module in net.named_modules(remove_duplicate=False):
            self.names.setdefault(module, []).append(name)
        self.times = Counter(call.module for call in self.calls)
        self.macs = macs_of(net, image)
        with torch.no_grad():
            self.answer = _tensors(net(image.clone()))
        self.readers = Counter(id(tensor) for module in net.modules() for tensor in _own(module))

    def name(self, calls: Sequence[Call]) -> str:
        first, last = (self.names[call.module][0] for call in (calls[0], calls[-1]))
        return first if first == last else f"{first} to {last}"

    def is_several(self, calls: Sequence[Call]) -> bool:
        """Whether these are several convolutions in a row, and no module."""
        return len(calls) > 1 and len(self.convs(calls)) > 1

    def convs(self, calls: Sequence[Call]) -> frozenset[str]:
        inside = [part for call in calls for part in call.module.modules()]
        return frozenset(self.names[part][0] for part in inside if isinstance(part, (*CONVS, *TRANSPOSED)))

    def candidates(self, kept: SkippedSites) -> Iterator[list[Call]]:
        """Modules that hold convolutions, the outermost first, then convolutions in a row."""
        for call in self.calls[1:]:
            holds = any(True for _ in call.module.children()) and _looks_around([call])
            if holds and self.times[call.module] == 1:
                yield [call]
            elif holds:
                kept.add(self.names[call.module][0], f"it is called {self.times[call.module]} times")
        leaves = [call for call in self.calls if not any(True for _ in call.module.children())]
        for units in (row for chain in chains(leaves) for row in _rows(chain)):
            for first in range(len(units)):
                for count in range(1, min(MOST_UNITS, len(units) - first) + 1):
                    run = [call for unit in units[first : first + count] for call in unit]
                    if _looks_around(run):
                        yield run

    def looked_at(self, calls: Sequence[Call]) -> tuple[str | None, Ends | None]:
        """Why no block can take the place of these calls, or the ends of one that can."""
        into, out = calls[0].into, calls[-1].out
        if into is None or out is None or into.dim() != self.image.dim() or out.dim() != self.image.dim():
            return "it takes or gives something else than one image", None
        if any(self.times[call.module] > 1 for call in calls):
            return "it is called more than once", None
        if out is self.calls[0].out:
            return "it gives the network's answer", None
        scale = _scale(into.shape[2:], out.shape[2:])
        if scale is None:
            sides = " and ".join("x".join(map(str, each.shape[2:])) for each in (into, out))
            return f"what goes in and comes out ({sides}) are no whole multiples of each other", None
        reason = self._entangled(calls)
        return (reason, None) if reason else (None, self._ends(calls, scale))

    def _entangled(self, calls: Sequence[Call]) -> str | None:
        """Why more depends on these modules than what they give."""
        inside = {part for call in calls for part in call.module.modules()}
        if calls[0].changes_input:
            return "it changes what it is given in place"
        outside = [other for other in self.calls if other.module in inside and not any(c.holds(other) for c in calls)]
        own = Counter(id(tensor) for module in inside for tensor in _own(module))
        if outside or any(self.readers[tensor] != count for tensor, count in own.items()):
            return "a part of it is used elsewhere, too"
        if any(call.module._forward_hooks or call.module._forward_pre_hooks for call in calls):
            return "hooks change what it computes"
        if any(isinstance(vars(part).get("zeros"), str) or "bits" in vars(part) for part in inside):
            return "an earlier pass made it sparse or put it into bits, and a block would be neither"
        if self._macs(calls) > WHOLE * self.macs:
            return f"it does more than {WHOLE:.0%} of the network's multiply-accumulates"
        return None

    def _ends(self, calls: Sequence[Call], scale: tuple[tuple[int, ...], tuple[int, ...]]) -> Ends:
        inside = [part for call in calls for part in call.module.modules()]
        convs: list[Any] = [part for part in inside if isinstance(part, CONVS)]
        sides = zip(*(conv.kernel_size for conv in convs), strict=True)
        into, out = calls[0].into, calls[-1].out
        assert into is not None and out is not None
        return Ends(
            before=into.shape[1],
            after=out.shape[1],
            inner=max(conv.out_channels for conv in convs),
            down=scale[0],
            up=scale[1],
            kernel=tuple(3 if max(side) > 1 else 1 for side in sides),
            norm=next((part for part in inside if isinstance(part, NORMS)), None),
            activation=next((part for part in inside if type(part) in _ACTIVATIONS), nn.ReLU(inplace=True)),
        )

    @torch.no_grad()
    def disturbed(self, calls: Sequence[Call]) -> str | None:
        """Why the network would not run as before with another module there; None if it does.

        It may read a weight or a part of the module, or what one layer of several in a row gives.
        """
        places = [self.names[call.module] for call in calls]
        try:
            with placed(self.net, places, in_first(_StandIn([call.module for call in calls]), places)):
                after = _tensors(self.net(self.image.clone()))
        except REFUSALS as error:
            return f"the network does not run with another module in its place ({first_line(error)})"
        same = len(self.answer) == len(after) and all(
            one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
            for one, other in zip(self.answer, after, strict=True)
        )
        return None if same else "what its layers give is used elsewhere, too"

    def stretch(self, calls: Sequence[Call], ends: Ends) -> Stretch:
        into = calls[0].into
        assert into is not None
        return Stretch(
            places=tuple(tuple(self.names[call.module]) for call in calls),
            modules=tuple(call.module for call in calls),
            into=into.shape,
            ends=ends,
            convs=self.convs(calls),
            tail=self._tail(calls),
            begun=calls[0].begun,
            macs=self._macs(calls),
            params=sum(tensor.numel() for call in calls for tensor in call.module.parameters()),
        )

    def _tail(self, calls: Sequence[Call]) -> tuple[nn.Module, ...]:
        """The norm and the activation whose answer is what comes out; a ReLU where nothing is below zero."""
        tail: list[nn.Module] = []
        out = calls[-1].out
        leaves = [c for c in self.calls if any(call.holds(c) for call in calls) and not list(c.module.children())]
        for call in reversed(leaves):
            if isinstance(call.module, (nn.Identity, _DROPOUTS)) and call.out is out:
                out = call.into
                continue
            plain = can_be_written(call.module) and self.times[call.module] == 1
            if call.out is not out or not plain or not isinstance(call.module, (*NORMS, *_ACTIVATIONS)):
                break
            tail.insert(0, call.module)
            out = call.into
        assert out is not None
        if not tail and isinstance(calls[-1].out, Tensor) and bool((calls[-1].out >= 0).all()):
            return (nn.ReLU(inplace=True),)
        return tuple(tail)

    def _macs(self, calls: Sequence[Call]) -> int:
        return sum(macs_of(call.module, torch.zeros_like(call.into)) for call in calls if call.into is not None)


def _looks_around(calls: Sequence[Call]) -> bool:
    """Whether some convolution in it reads more than one pixel; what only mixes channels is `lowrank`'s matter."""
    inside = [part for call in calls for part in call.module.modules()]
    return any(isinstance(part, CONVS) and max(part.kernel_size) > 1 for part in inside)


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module._parameters.values() if parameter is not None)


def _rows(chain: Sequence[Call]) -> Iterator[list[list[Call]]]:
    """The units of a chain, those in a row together: a plain convolution with the norms and activations behind it."""
    row: list[list[Call]] = []
    for call in chain:
        if type(call.module) in CONVS:
            row.append([call])
        elif row and isinstance(call.module, (*NORMS, *_ACTIVATIONS, _DROPOUTS, nn.Identity)):
            row[-1].append(call)
        else:
            yield row
            row = []
    yield row


def _scale(into: Sequence[int], out: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """By how much each axis gets shorter, and by how much longer; None where that is no whole number."""
    down, up = [], []
    for before, after in zip(into, out, strict=True):
        less, more = max(1, round(before / after)), max(1, round(after / before))
        if -(-before // less) * more != after:
            return None
        down.append(less)
        up.append(more)
    return tuple(down), tuple(up)


class _StandIn(nn.Module):
    """Computes what other modules do, and lets nobody see them."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.__dict__["_behind"] = tuple(modules)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.__dict__["_behind"]:
            x = module(x)
        return x


def _tensors(answer: Any) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer.values() if isinstance(answer, Mapping) else answer
    return [tensor for part in parts for tensor in _tensors(part)] if isinstance(parts, (list, tuple)) else []
