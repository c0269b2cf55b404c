"""How answers of someone else's network are read: what a recipe tells (`Head`), what a probe found (`Reading`)."""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import nn

from compress.errors import RecipeError

Layout = Literal["channels_first", "channels_last"]
Activation = Literal["none", "sigmoid", "softmax"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Head:
    """How logits are taken from an answer; what is left out is found by asking the network once."""

    output: str | int | None = None
    """Which part of the answer they are: a key, or a place (-1 is the last)."""
    layout: Layout | None = None
    """Where the answer's classes are: second, or last."""
    takes: Layout | None = None
    """Where the image's channels are for this network: second, or last."""
    size: Literal["input", "own"] | None = None
    """`input` resizes a smaller answer to the input bilinearly; `own` leaves it, as that of an unpadded network."""
    activation: Activation | None = None
    """What the network has applied already. A last layer of that kind is taken off; where it is a function within the
    network, probabilities are turned back into logits. `none` says that these are logits, whatever they look like."""


class ForeignNetwork(Protocol):
    """A network of someone else's, described and not built yet: a `Network` whose answer is still to be read."""

    @property
    def classes(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def dims(self) -> int: ...
    @property
    def input(self) -> tuple[int, ...] | None:
        """The one size it takes, where it takes only one."""
        ...

    @property
    def head(self) -> Head: ...
    def unwrapped(self) -> nn.Module:
        """The network as its library builds it, freshly initialised."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How one network's answers are read."""

    output: str
    """The key of the logits, "" where the answer is nothing else."""
    training: tuple[str, ...]
    """The keys of all logits that it answers with in training, the final ones first."""
    layout: Layout
    takes: Layout
    size: Literal["input", "own"]
    resized: bool
    """Whether answers are resized to the input: the example's had another size, or the recipe says so."""
    activation: Activation
    """What is undone in each answer."""
    removed: tuple[str, ...]
    """Last layers that are taken off: they made probabilities of logits."""
    channels: bool
    """Whether the answer has an axis of classes: one class may come without."""
    example: tuple[int, ...]
    """A size that the network took."""
    notes: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Whether the network answers as ours do, so that nothing needs to be wrapped."""
        as_ours = self.layout == self.takes == "channels_first" and self.activation == "none" and self.channels
        return as_ours and self.output == "" and not self.resized and len(self.training) == 1 and self.training[0] == ""


class SeveralOutputs(RecipeError):
    """Any of several outputs could be the final logits: without weights nothing tells which."""

    def __init__(self, outputs: tuple[str, ...]) -> None:
        self.outputs = outputs
        sentence = (
            f"the network answers with {len(outputs)} outputs of one size ({', '.join(outputs)}): say which are the "
            "final logits with head: {output: ...}"
        )
        super().__init__("asked once", [sentence])
