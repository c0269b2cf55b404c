"""What an objective is to the rest: a dataclass, called with what was measured; its fields are its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

import pydantic
from pydantic import ConfigDict, Field

OPTIONS = ConfigDict(extra="forbid")
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""What costs nothing is nowhere."""
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an artifact runs: the words of a runtime and of a device."""

    backend: str
    device: str

    def __str__(self) -> str:
        return f"{self.backend} on {self.device}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one network on one runtime of one device."""

    scores: Mapping[str, Any] | None
    """`Scores.as_dict()` over the validation cases, without distances between surfaces."""
    latency_ms: Mapping[str, Any] | None
    """`Samples.as_dict()`, at the clock of the reference's first timing."""
    size_mb: float
    macs: int
    params: int
    bit_operations: int | None


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=OPTIONS)
class AtPlace:
    """Options that every objective has."""

    backend: Annotated[str, Field(description="The runtime whose artifact is meant.")] = "onnxruntime"
    device: Annotated[str | None, Field(description="Where it runs; none is the first of the recipe's devices.")] = None

    def place(self, first: str) -> Place:
        """Where it is measured.

        Args:
            first: the recipe's first device.
        """
        return Place(backend=self.backend, device=self.device or first)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=OPTIONS)
class AtMost:
    """Options of what shall be little."""

    direction: ClassVar[Direction] = "minimize"

    at_most: Annotated[Limit | None, Field(description="What is above is on no front.")] = None

    def within(self, value: float) -> bool:
        """Whether the limit holds."""
        return self.at_most is None or value <= self.at_most


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=OPTIONS)
class OfTheNetwork(AtMost):
    """Options of what is the same wherever the network runs."""

    def place(self, first: str) -> None:
        """Nowhere: nothing is built for it."""


class Objective(Protocol):
    """One number of a trial, and whether much or little of it is good."""

    @property
    def direction(self) -> Direction: ...

    @property
    def title(self) -> str:
        """What it is called in tables, with its unit."""
        ...

    def place(self, first: str) -> Place | None:
        """Where it is measured; None for what is the same everywhere."""
        ...

    def __call__(self, measured: Measured) -> float | None:
        """The number; None where it was not measured."""
        ...

    def within(self, value: float) -> bool: ...


Objectives = Sequence[tuple[str, Objective]]
"""Each with its word."""
