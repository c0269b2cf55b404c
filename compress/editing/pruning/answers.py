"""All that a network answers, in training (deep supervision) and after it: both must still fit when channels go."""

from __future__ import annotations

from types import MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from export.errors import REFUSALS
from export.modules import copy_of

_STILL: Final = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


@torch.no_grad()
def answering(net: nn.Module, example: Tensor) -> nn.Module:
    """The network, or, if it has more answers in training than after it (deep supervision), a copy that gives all.

    What only training reads must still fit when channels are gone: the network is trained on afterwards.

    Args:
        net: in evaluation mode.
    """
    both = copy_of(net)
    both.forward = MethodType(_all_answers, both)
    try:
        answers = _in_training(both, example)
    except REFUSALS:
        return net
    return both if len(_tensors_in(answers)) > 1 else net


def _all_answers(net: nn.Module, image: Tensor) -> Tensor:
    answers = (type(net).forward(net, image), _in_training(net, image))
    whole = torch.cat([answer.flatten() for answer in _tensors_in(answers)])
    return whole.view(1, -1, *(1 for _ in image.shape[2:]))


def _in_training(net: nn.Module, image: Tensor) -> Any:
    before = [(module, module.training) for module in net.modules()]
    try:
        for module in net.modules():
            # Statistics of one image say nothing, and chance has no place here.
            module.training = not isinstance(module, _STILL)
        return type(net).forward(net, image)
    finally:
        for module, training in before:
            module.training = training


def _tensors_in(answers: Any) -> list[Tensor]:
    return [one for one in tree_leaves(answers) if isinstance(one, Tensor) and one.is_floating_point()]
