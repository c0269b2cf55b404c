"""A module that somebody has in a Python process, described by a number that means something there alone."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import torch
from torch import nn

from compress.errors import WeightsError
from compress.networks.foreign.adapter import adapted
from compress.networks.foreign.checks import fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.hidden import uncovered

_HELD: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
"""By their numbers; each as long as somebody has it."""
_NUMBERS = itertools.count(1)


def hold(net: nn.Module) -> int:
    """A number under which copies of the module are made, as long as it lives."""
    number = next(_NUMBERS)
    _HELD[number] = net
    return number


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """A copy of the module, weights included, that answers with logits_BKHW."""

    number: int
    classes: int
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: int
    dims: int
    input: tuple[int, ...] | None = None
    head: Head = field(default_factory=Head)

    def __call__(self) -> nn.Module:
        return adapted(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this size; None if nothing."""
        return fault_of(self, size)

    def unwrapped(self) -> nn.Module:
        """A copy of the module.

        Raises:
            WeightsError: if this process has no such module: weights that were saved by another one.
        """
        net = _HELD.get(self.number)
        if net is None:
            raise WeightsError(
                "the network was wrapped in a Python process that has ended; wrap it again, or name its class in a "
                "recipe (`network: python`), whose weights any process loads"
            )
        net = copy.deepcopy(net)
        # Where shapes alone are asked for, modules are made without values.
        return uncovered(net.to("meta") if torch.empty(0).is_meta else net, type(net).__name__)
