"""The labels of every value that a walk over the network's operations has come to: what the rules read and write."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final

from torch import Tensor, fx

from compress.editing.pruning.dependency.labels import NOBODY, Labels, nobody

TensorAxis = tuple[str, int]
"""A tensor of the network, by its name, and one of its axes."""

NOT_CHANNELS: Final = "it reads what is no layer's output channels"
_MOST_ELEMENTS: Final = 1_000_000


class Trace:
    """One walk over the network's operations.

    A value's labels are a tensor of its own rank, an axis of length 1 where all along it they are the same.
    What torch.fx says of an argument is that it may be anything, hence the `Any`.
    """

    def __init__(self, *, ties: bool) -> None:
        self.ties = ties
        """Whether channels are also made one that must be removed together only to keep a structure
        (the halves of a split, the groups of a convolution)."""
        self.labels = Labels()
        self.values: dict[fx.Node, Any] = {}
        """The labels of what each operation gives."""
        self.tensors: dict[fx.Node, str] = {}
        """The inputs of the graph that are parameters and buffers, by name; a shared one has one name."""
        self.axes: dict[TensorAxis, Tensor] = {}
        self.elements: dict[str, Tensor] = {}
        self.makers: dict[TensorAxis, str] = {}
        """The layers that make channels, by the axis of their weight along which they do."""
        self.bare: dict[str, Tensor] = {}
        """The channels of norms, by the norm: one without tensors has nothing else to know its width by."""
        self.module = ""
        """The module whose operation is being looked at."""

    def of(self, node: Any) -> Tensor:
        """The labels of a value, made one where they are one; a tensor of the network gets one for each element."""
        if not isinstance(node, fx.Node):
            return nobody(0)
        if node in self.tensors:
            name = self.tensors[node]
            if len(shape_of(node)) == 1:
                return self.compact(self.axis(node, 0))
            if name not in self.elements:
                self.elements[name] = self._elements(node, name)
            return self.compact(self.elements[name])
        found = self.values[node]
        if not isinstance(found, Tensor):
            return nobody(len(shape_of(node)))
        return self.compact(found)

    def _elements(self, node: Any, name: str) -> Tensor:
        if prod(shape_of(node)) > _MOST_ELEMENTS:
            return self.kept(node, f"{name} is computed with, and is too large to follow")
        return self.labels.fresh(*shape_of(node))

    def kept(self, node: Any, reason: str, channels: int | None = None) -> Tensor:
        """Labels of a value whose axes (or one of them) must stay as long as they are."""
        shape = shape_of(node)
        lengths = [n if channels in (None, axis) else 1 for axis, n in enumerate(shape)]
        found = self.labels.fresh(1).expand(lengths) if prod(lengths) > _MOST_ELEMENTS else self.labels.fresh(*lengths)
        self.labels.keep(found, reason)
        return found

    def compact(self, labels: Tensor) -> Tensor:
        for axis, (length, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
            if length > 1 and stride == 0:
                labels = labels.narrow(axis, 0, 1)
        labels = self.labels.roots(labels) if labels.numel() else labels
        for axis, length in enumerate(labels.shape):
            if length > 1 and bool((labels == labels.narrow(axis, 0, 1)).all()):
                labels = labels.narrow(axis, 0, 1)
        return labels

    def full(self, node: Any) -> Tensor:
        return self.of(node).expand(shape_of(node))

    def channels(self, node: Any, axis: int = 1) -> Tensor:
        """One label for each position along an axis; what differs along the others is made one."""
        labels = self.of(node).movedim(axis, 0).flatten(1)
        self.labels.unite(labels, labels[:, :1])
        labels = self.labels.roots(labels[:, 0])
        return labels.expand(shape_of(node)[axis])

    def axis(self, node: Any, axis: int) -> Tensor:
        """The labels along one axis of a parameter or buffer."""
        name = self.tensors[node]
        if (name, axis) not in self.axes:
            self.axes[name, axis] = self.labels.fresh(shape_of(node)[axis])
        return self.axes[name, axis]

    def joined(self, node: Any, axis: int, channels: Tensor) -> None:
        """A vector of the network that has one value for each of these channels: a bias, a norm's weight."""
        if not isinstance(node, fx.Node):
            return
        if node in self.tensors:
            along = self.axis(node, axis)
            self.labels.unite(along, channels)
            self.labels.keep(along[channels == NOBODY], NOT_CHANNELS)
        else:
            self.labels.unite(self.of(node), channels)
            self.labels.keep(channels, f"{self.module or 'a layer'} computes its weight from other tensors")

    def made(self, weight: Any, axis: int) -> Tensor:
        name = self.tensors[weight]
        self.makers.setdefault((name, axis), name.removesuffix(".weight"))
        return self.axis(weight, axis)


Rule = Callable[[Trace, Any, str], Any]
"""From an operation (a node, and its name without overload) to the labels of what it gives."""


def shape_of(node: Any) -> list[int]:
    """The shape of what an operation gives."""
    return [int(length) for length in node.meta["val"].shape]


def alone(node: Any, labels: Tensor) -> Any:
    """Labels of an operation's first result; its others (a norm's statistics) speak of no channel."""
    value = node.meta["val"]
    return labels if isinstance(value, Tensor) else [labels] + [None] * (len(value) - 1)


def for_each(node: Any, labels: Tensor) -> Any:
    """The same labels for each of an operation's results."""
    value = node.meta["val"]
    return labels if isinstance(value, Tensor) else [labels] * len(value)
