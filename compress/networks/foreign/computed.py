"""Weights that a network computes before each call, from others: folded into plain ones as the network comes in.

Weight norm (Salimans and Kingma 2016, arXiv 1602.07868) and spectral norm (Miyato et al. 2018, arXiv 1802.05957) in
torch's older form, hooks, and its newer, parametrizations; masks of torch.nn.utils.prune; any other parametrization.
What a network answers does not change by it. Trained further, the weights are free of what computed them.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm


@torch.no_grad()
def folded(net: nn.Module) -> list[str]:
    """Fold every computed weight of the network, in place; what was folded: "enc.conv.weight (weight norm)"."""
    before = [(module, module.training) for module in net.modules()]
    # In training, spectral norm would take one more step of its iteration first.
    net.eval()
    found = []
    for name, module in list(net.named_modules()):
        for tensor, how in [*_hooked(module), *_parametrized(module)]:
            found.append(f"{name}.{tensor} ({how})" if name else f"{tensor} ({how})")
    for module, training in before:
        module.training = training
    return found


def _hooked(module: nn.Module) -> list[tuple[str, str]]:
    found = []
    with warnings.catch_warnings():
        # That the older forms are deprecated is no news to their user.
        warnings.simplefilter("ignore", FutureWarning)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
                found.append((hook.name, "weight norm"))
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
                _forget_old_names(module)
                found.append((hook.name, "spectral norm"))
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
                found.append((hook._tensor_name, "a pruning mask"))
    return found


def _forget_old_names(module: nn.Module) -> None:
    """Torch leaves behind what looks for spectral norm's own names in every state dict."""
    hooks: Any = module._load_state_dict_pre_hooks
    for key, hook in list(hooks.items()):
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del hooks[key]


def _parametrized(module: nn.Module) -> list[tuple[str, str]]:
    found = []
    while parametrize.is_parametrized(module):
        all_of_it: Any = module.parametrizations
        tensor = next(iter(all_of_it))
        kinds = [type(each).__name__.strip("_") for each in all_of_it[tensor]]
        parametrize.remove_parametrizations(module, tensor)
        found.append((tensor, ", ".join(kinds)))
    return found
