"""What goes into a stretch of the trained network and what comes out, on real cases.

Legend: B batch, C channels, K classes, S one or more axes of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.editing.blocks.stretches import Stretch


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The tensors of one batch."""

    into: Tensor
    """BCS."""
    wanted: Tensor
    """What comes out before the norm and the activation that stay."""
    out: Tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.into, self.wanted, self.out))


Look = Callable[[Stretch, Seen], None]


class _Enough(Exception):
    """All stretches have answered; the rest of the network need not run."""


@torch.no_grad()
def watch(net: nn.Module, stretches: Sequence[Stretch], image_BCS: Tensor, look: Look) -> None:
    """Run the trained network on a batch, and show each of these stretches as soon as it has answered.

    Args:
        net: the network that the stretches were found in.
        look: may not keep the tensors: what comes after works on them in place.
    """
    waiting = set(stretches)

    def done(stretch: Stretch, seen: Seen) -> None:
        look(stretch, seen)
        waiting.discard(stretch)
        if not waiting:
            raise _Enough

    handles = [handle for each in stretches for handle in _hooks(each, done)]
    try:
        with suppress(_Enough):
            net(image_BCS.clone())
    finally:
        for handle in handles:
            handle.remove()


def _hooks(stretch: Stretch, done: Look) -> Iterator[Any]:
    kept: dict[str, Tensor] = {}

    def before(name: str, *, changes: bool) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            tensor = args[0] if args else next(iter(kwargs.values()))
            kept[name] = tensor.clone() if changes else tensor

        return hook

    def after(_: nn.Module, __: Any, out: Tensor) -> None:
        seen = Seen(into=kept.pop("into"), wanted=kept.pop("wanted", out), out=out)
        done(stretch, seen)

    # A stretch does not change what it is given; an activation at its end may.
    yield stretch.modules[0].register_forward_pre_hook(before("into", changes=False), with_kwargs=True)
    inside = {part for module in stretch.modules for part in module.modules()}
    if stretch.tail and stretch.tail[0] in inside:
        yield stretch.tail[0].register_forward_pre_hook(before("wanted", changes=True), with_kwargs=True)
    yield stretch.modules[-1].register_forward_hook(after)


def seen_at(net: nn.Module, stretch: Stretch, image_BCS: Tensor) -> Seen:
    """What one stretch sees and answers, to keep."""
    found: list[Seen] = []

    def keep(_: Stretch, seen: Seen) -> None:
        found.append(Seen(into=seen.into.clone(), wanted=seen.wanted.clone(), out=seen.out.clone()))

    watch(net, [stretch], image_BCS, keep)
    return found[0]


@torch.no_grad()
def into_of(net: nn.Module, module: nn.Module, image_BCS: Tensor) -> Tensor:
    """What a module of a network is called on."""
    kept: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...]) -> None:
        kept.append(args[0].clone())
        raise _Enough

    handle = module.register_forward_pre_hook(before)
    try:
        with suppress(_Enough):
            net(image_BCS.clone())
    finally:
        handle.remove()
    return kept[0]


class Error:
    """The squared error of answers, as a share of how much the wanted ones vary from pixel to pixel; streamed."""

    def __init__(self) -> None:
        self.squares, self.values = 0.0, 0
        self.sum_C: Tensor | float = 0.0
        self.energy_C: Tensor | float = 0.0

    def add(self, answer_BCS: Tensor, wanted_BCS: Tensor) -> None:
        answer, wanted = answer_BCS.double(), wanted_BCS.double()
        axes = [axis for axis in range(wanted.dim()) if axis != 1]
        self.squares += float((answer - wanted).square().sum())
        self.values += wanted.numel() // wanted.shape[1]
        self.sum_C = self.sum_C + wanted.sum(axes)
        self.energy_C = self.energy_C + wanted.square().sum(axes)

    def share(self) -> float:
        """0 where all is as wanted; 1 is what the mean of each channel would reach."""
        spread = torch.as_tensor(self.energy_C - torch.as_tensor(self.sum_C) ** 2 / max(self.values, 1)).sum()
        return self.squares / max(float(spread), 1e-12)


class Overlap:
    """The soft Dice of a network's class probabilities with the trained network's, over all pixels; streamed."""

    def __init__(self) -> None:
        self.both_K: Tensor | float = 0.0
        self.own_K: Tensor | float = 0.0
        self.wanted_K: Tensor | float = 0.0

    def add(self, logits_BKS: Tensor, wanted_BKS: Tensor) -> None:
        one, other = (_probabilities(each.double()) for each in (logits_BKS, wanted_BKS))
        axes = [axis for axis in range(one.dim()) if axis != 1]
        self.both_K = self.both_K + (one * other).sum(axes)
        self.own_K = self.own_K + one.square().sum(axes)
        self.wanted_K = self.wanted_K + other.square().sum(axes)

    def lost(self) -> float:
        """0 where all is as wanted, 1 where nothing is; the mean over the classes that the trained network finds."""
        both_K, own_K, wanted_K = (torch.as_tensor(each) for each in (self.both_K, self.own_K, self.wanted_K))
        found_K = wanted_K >= 1
        if not bool(found_K[1:].any()):
            # It finds no foreground: how sure it is of the background is all that can be lost.
            return float((1 - 2 * both_K / (own_K + wanted_K))[0])
        return float((1 - 2 * both_K / (own_K + wanted_K))[1:][found_K[1:]].mean())


def _probabilities(logits_BKS: Tensor) -> Tensor:
    """Of all classes, the background first; one logit is that of the only class beside it."""
    if logits_BKS.shape[1] > 1:
        return logits_BKS.softmax(1)
    return torch.cat([(-logits_BKS).sigmoid(), logits_BKS.sigmoid()], 1)
