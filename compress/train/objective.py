"""What one step of training minimises.

Legend: B batch, C channels, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compress.data.dataset.tiles import central


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Augmented cases, as the network takes them."""

    image_BCHW: Tensor
    mask_BHW: Tensor
    names: tuple[tuple[int, int], ...]
    """Which view (way of augmenting) of which train case each one is: equal names, equal pixels."""

    def to(self, device: torch.device) -> Batch:
        return Batch(image_BCHW=self.image_BCHW.to(device), mask_BHW=self.mask_BHW.to(device), names=self.names)


class Objective(Protocol):
    """loss = objective(net, batch): calls the network itself, so that it may watch its layers.

    What it learns on its own (adapters, a critic) is in its parameters and its state: the first are
    optimized beside the network's, the second is kept when training is interrupted.
    """

    def __call__(self, net: nn.Module, batch: Batch) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def to(self, device: torch.device) -> Any: ...


class Supervised(nn.Module):
    """A loss of logits and masks: `loss(logits_BKHW, mask_BHW)`.

    A network under deep supervision answers in training with several logits, the final ones first;
    each following one counts half as much (Isensee et al. 2021, nnU-Net).
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, net: nn.Module, batch: Batch) -> Tensor:
        return self.of(net(batch.image_BCHW), batch.mask_BHW)

    def of(self, answer: Tensor | Sequence[Tensor], mask_BHW: Tensor) -> Tensor:
        """The loss of an answer that is there already."""
        logits = [answer] if isinstance(answer, Tensor) else list(answer)
        shares = [0.5**index for index in range(len(logits))]
        losses = [self.loss(one, fitted(mask_BHW, one)) for one in logits]
        total = torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum()
        return total / sum(shares)


def fitted(mask_BHW: Tensor, logits_BKHW: Tensor) -> Tensor:
    """The mask for logits of another size: the centre that an unpadded network predicts, or every n-th pixel of it."""
    size = logits_BKHW.shape[2:]
    full = mask_BHW.shape[-len(size) :]
    if is_coarser(size, full):
        steps = [slice(None, None, whole // side) for side, whole in zip(size, full, strict=True)]
        return mask_BHW[(slice(None),) * (mask_BHW.dim() - len(size)) + tuple(steps)]
    return mask_BHW[central(size, full)]


def is_coarser(size: Sequence[int], full: Sequence[int]) -> bool:
    """Whether an answer of this size is for all of its input, in larger pixels, and not for its middle."""
    return full[0] % size[0] == 0 and full[0] > size[0]
