"""What goes into a stretch of the trained network and what comes out, on real cases.

Legend: B batch, C channels, S one or more axes of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class _Enough(Exception):
    """The stretch has answered; the rest of the network need not run."""


@torch.no_grad()
def seen_at(net: nn.Module, stretch: Stretch, image_BCS: Tensor) -> Seen:
    """What a stretch sees and answers in the trained network.

    Args:
        net: the network that the stretch was found in.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor) -> None:
        # What comes after may work in place.
        kept[name] = tensor.detach().clone()

    def before(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            keep(name, args[0] if args else next(iter(kwargs.values())))

        return hook

    def done(_: nn.Module, __: Any, out: Tensor) -> None:
        keep("out", out)
        raise _Enough

    handles = [stretch.modules[0].register_forward_pre_hook(before("into"), with_kwargs=True)]
    inside = {part for module in stretch.modules for part in module.modules()}
    if stretch.tail and stretch.tail[0] in inside:
        handles.append(stretch.tail[0].register_forward_pre_hook(before("wanted"), with_kwargs=True))
    handles.append(stretch.modules[-1].register_forward_hook(done))
    try:
        with suppress(_Enough):
            net(image_BCS.clone())
    finally:
        for handle in handles:
            handle.remove()
    return Seen(into=kept["into"], wanted=kept.get("wanted", kept["out"]), out=kept["out"])


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
