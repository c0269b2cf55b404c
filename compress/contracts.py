"""What a pass and a network are to the rest: dataclasses that can be called; their fields are the recipe's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

    from compress.data.dataset.cases import Role
    from compress.task import Task
    from export.modules import Precision


class Pass(Protocol):
    """(net, task) -> net. The network given is not changed; the one returned is an ordinary module."""

    requires: ClassVar[Precision]
    """What the networks that it takes compute in."""
    ensures: ClassVar[Precision]
    """What the network that it returns computes in."""

    @property
    def uses(self) -> tuple[Role, ...]:
        """The roles whose cases this pass looks at; never "test"."""
        ...

    def __call__(self, net: nn.Module, task: Task) -> nn.Module: ...


@runtime_checkable
class Timed(Protocol):
    """A pass that can be given a time to reach, which it measures while it works."""

    @property
    def latency_ms(self) -> float | None:
        """None where it is given none, and measures nothing."""
        ...

    @property
    def device(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def threads(self) -> int | None: ...

    @property
    def python(self) -> str:
        """Of a device elsewhere: the one there that has the runtime."""
        ...


class Network(Protocol):
    """A network that is described, and not built yet."""

    @property
    def classes(self) -> int:
        """Output channels, background included; 1 is a single sigmoid logit."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        ...

    @property
    def dims(self) -> int:
        """2 for images (BCHW), 3 for volumes (BCDHW)."""
        ...

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this size, (height, width) or (depth, height, width); None if nothing."""
        ...

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits = net(image), in evaluation one tensor with `classes` channels."""
        ...


def multiples(size: Sequence[int], steps: int | Sequence[int]) -> str | None:
    """What is wrong with a size whose sides must be multiples of `steps`, one for all or one each; None if nothing."""
    each = [steps] * len(size) if isinstance(steps, int) else list(steps)
    wanted = [-(-side // step) * step for side, step in zip(size, each, strict=True)]
    if wanted == list(size):
        return None
    step = str(each[0]) if len(set(each)) == 1 else "x".join(map(str, each))
    return f"this network needs multiples of {step}: pad to {'x'.join(map(str, wanted))} or set data size"
