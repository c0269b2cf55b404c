"""What every pass is: a frozen dataclass that can be called, its fields the recipe's options."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from compress.data.cases import Role
from compress.task import Task


class Pass(Protocol):
    """(net, task) -> net. The network given is not changed; the one returned is an ordinary module."""

    @property
    def uses(self) -> tuple[Role, ...]:
        """The roles whose cases this pass looks at; never "test"."""
        ...

    def __call__(self, net: nn.Module, task: Task) -> nn.Module: ...
