"""A wider network that computes what a trained narrower one does (Net2WiderNet, Chen et al. 2016, arXiv 1511.05641).

Training a wide network from there takes a fraction of the epochs that it takes from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compress.errors import WeightsError

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


@torch.no_grad()
def widen(net: nn.Module, narrow: Mapping[str, Tensor]) -> None:
    """Load into `net` the weights of the same network with fewer channels, each channel copied k times.

    Copies stand side by side, so that concatenations of widened tensors are widened concatenations.
    The two halves of a copied input get unequal shares of its weight (their sum is what counts):
    otherwise copies would get equal gradients and stay copies for ever.

    Raises:
        WeightsError: if a tensor is missing, or its size no multiple of the narrow one's.
    """
    modules = dict(net.named_modules())
    for name, wide in net.state_dict().items():
        if name not in narrow:
            raise WeightsError(f"the narrower network has no {name}; it must be the same network but for its width")
        copies = _copies(name, tuple(wide.shape), tuple(narrow[name].shape))
        tensor = narrow[name].to(wide.dtype)
        module = modules[name.rpartition(".")[0]]
        if name.endswith("weight") and isinstance(module, _LAYERS):
            into = 0 if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d) else 1
            wide.copy_(_layer(tensor, copies, into, getattr(module, "groups", 1)))
        else:
            wide.copy_(_repeated(tensor, copies))


def _copies(name: str, wide: tuple[int, ...], narrow: tuple[int, ...]) -> tuple[int, ...]:
    fits = len(wide) == len(narrow) and all(w % n == 0 for w, n in zip(wide, narrow, strict=False))
    if not fits:
        raise WeightsError(f"{name} is {narrow} in the narrower network and {wide} here: no whole multiple of it")
    return tuple(w // n for w, n in zip(wide, narrow, strict=True))


def _repeated(tensor: Tensor, copies: tuple[int, ...]) -> Tensor:
    for axis, count in enumerate(copies):
        tensor = tensor.repeat_interleave(count, dim=axis)
    return tensor


def _layer(weight: Tensor, copies: tuple[int, ...], into: int, groups: int) -> Tensor:
    wide = _repeated(weight, copies)
    count = copies[into]
    if groups > 1 or count == 1:
        return wide
    shares = wide.unflatten(into, (-1, count)) / count
    noise = 0.5 * shares.std() * torch.randn_like(shares)
    # Shares of one input sum to its weight: the noise has no mean over them.
    return (shares + noise - noise.mean(into + 1, keepdim=True)).flatten(into, into + 1)
