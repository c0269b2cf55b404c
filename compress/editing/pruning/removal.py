"""Channels taken out of a network for good: an ordinary, smaller network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from compress.editing.named_layers import tensor_of
from compress.editing.pruning.dependency.groups import Bundle
from compress.editing.pruning.dependency.layers import goes_across
from compress.editing.pruning.dependency.trace import TensorAxis
from export.modules import copy_of


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Some units of a bundle, to be removed."""

    bundle: Bundle
    units: tuple[int, ...]


def without(net: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """A copy of the network, these units of its channels removed from every tensor they are in."""
    lost: dict[str, int] = {}
    for cut in cuts:
        for unit in cut.units:
            for name, count in cut.bundle.widths[unit].items():
                lost[name] = lost.get(name, 0) + count
    gone = positions(cuts)
    whole = {name: tensor_of(net, name) for name, _ in gone}
    left = {name: tensor.detach() for name, tensor in whole.items()}
    for (name, axis), indices in gone.items():
        stay = sorted(set(range(left[name].shape[axis])) - indices)
        left[name] = left[name].index_select(axis, torch.tensor(stay, device=left[name].device))
    smaller = copy_of(net, [(whole[name], tensor) for name, tensor in left.items()])
    for name, module in smaller.named_modules():
        _resize(module, lost.get(name, 0))
    return smaller


def positions(cuts: Sequence[Cut]) -> dict[TensorAxis, set[int]]:
    """Where along which axes the removed channels are."""
    found: dict[TensorAxis, set[int]] = {}
    for cut in cuts:
        for unit in cut.units:
            for axis, indices in cut.bundle.units[unit].items():
                found.setdefault(axis, set()).update(indices)
    return found


def _resize(module: nn.Module, lost: int) -> None:
    """Bring what a layer says of its own width up to date with its tensors."""
    if isinstance(module, nn.modules.conv._ConvNd):
        _resize_convolution(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features -= lost
    elif isinstance(module, nn.GroupNorm) and lost:
        size = module.num_channels // module.num_groups
        module.num_channels -= lost
        if not goes_across(module.num_groups, size):
            module.num_groups = module.num_channels // size
    elif isinstance(module, nn.LayerNorm) and lost:
        module.normalized_shape = (*module.normalized_shape[:-1], module.normalized_shape[-1] - lost)


def _resize_convolution(conv: nn.modules.conv._ConvNd) -> None:
    first, second = conv.weight.shape[:2]
    each = conv.out_channels // conv.groups
    if conv.groups > 1 and conv.groups == conv.in_channels:
        conv.groups = conv.in_channels = first if conv.transposed else first // each
        conv.out_channels = conv.groups * each
    elif conv.transposed:
        conv.in_channels, conv.out_channels = first, second * conv.groups
    else:
        conv.in_channels, conv.out_channels = second * conv.groups, first
