"""Small networks to prune, and as much of a task as that needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from structures import STRUCTURES
from torch import Tensor, nn

from compress.editing.pruning.trial import trial_of
from compress.passes.prune import Prune
from compress.storage.description import build_net

QUICK = {"attention_gate", "shuffle", "tied"}
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STRUCTURES]


def stand_in(net: nn.Module, image: Tensor, notes: list[str] | None = None) -> Any:
    """As much of a task as pruning by weights needs."""
    return SimpleNamespace(
        net=net, example=image, seed=3, folder=None, note=(notes if notes is not None else []).append
    )


def unet(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_net({"unet": {"classes": 3, "in_channels": 1, "width": 16, "depth": 1, **options}}).eval()


def pruned(net: nn.Module, notes: list[str] | None = None, side: int = 32, **options: Any) -> nn.Module:
    return Prune(**options)(net, stand_in(net, torch.zeros(1, 1, side, side), notes))


def chain() -> nn.Module:
    """Two layers and a head: enough where only widths count."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 3, 1),
    )
    return nn.Sequential(*layers).eval()


def cut(net: nn.Module, notes: list[str] | None = None, **options: Any) -> nn.Module:
    """A pruned network that nobody can describe."""
    return Prune(**options).smaller(net, stand_in(net, torch.zeros(1, 1, 32, 32), notes))


def size(net: nn.Module, image: Tensor) -> tuple[int, int]:
    return trial_of(net, image).size()


def widths(net: nn.Module) -> list[int]:
    return [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def with_copies() -> nn.Module:
    """A network whose layers have each channel twice, the second fainter and less listened to."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )
    layers: Any = net
    with torch.no_grad():
        for made, read in ((0, 2), (2, 5), (5, 7)):
            out = 1 if made == 5 else 0
            first = layers[made].weight.narrow(out, 0, 4)
            layers[made].weight.narrow(out, 4, 4).copy_(first / 2)
            if layers[made].bias is not None:
                layers[made].bias[4:] = layers[made].bias[:4] / 2
            layers[read].weight.narrow(0 if read == 5 else 1, 4, 4).mul_(0.2)
    return net
