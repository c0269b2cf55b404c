"""What a decision may become: one of several values, or a number between two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from compress.recipe.choices import NUMBER, ONE_OF


@dataclass(frozen=True, kw_only=True)
class OneOf:
    """One of these values, of any kind."""

    values: Sequence[Any]

    first = 0

    @property
    def size(self) -> int:
        return len(self.values)

    def listed(self) -> Sequence[int]:
        """The places of its values."""
        return range(len(self.values))


@dataclass(frozen=True, kw_only=True)
class Between:
    """A number from `low` to `high`, both included; a whole one where all that is given is whole."""

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False
    """Whether its logarithm is drawn evenly, as for rates: 1e-4 to 1e-3 is as wide as 1e-3 to 1e-2."""

    @property
    def first(self) -> int | float:
        return self.low

    @property
    def whole(self) -> bool:
        return all(isinstance(each, int) for each in (self.low, self.high, self.step or 1))

    @property
    def size(self) -> int | None:
        """How many numbers there are; None where they are not in steps."""
        return None if self._step is None else round((self.high - self.low) / self._step) + 1

    def listed(self) -> Sequence[int | float]:
        """All of its numbers, which are in steps; made when they are asked for, since there may be billions."""
        assert self.size is not None and self._step is not None
        return _Steps(low=self.low, step=self._step, length=self.size)

    @property
    def _step(self) -> int | float | None:
        return 1 if self.step is None and self.whole else self.step


Domain = OneOf | Between


@dataclass(frozen=True, kw_only=True)
class _Steps(Sequence[int | float]):
    """Numbers in steps, none of which is held in memory."""

    low: int | float
    step: int | float
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, place: int) -> int | float: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[int | float]: ...

    def __getitem__(self, place: int | slice) -> int | float | Sequence[int | float]:
        at = range(self.length)[place]
        return tuple(map(self._at, at)) if isinstance(at, range) else self._at(at)

    def _at(self, place: int) -> int | float:
        # Counted from the low end and rounded, since ten times 0.1 is not 1.
        return _rounded(self.low + place * self.step)


def _rounded(value: int | float) -> int | float:
    return value if isinstance(value, int) else round(value, 12)


def domain_of(node: Mapping[str, Any], where: str, mistakes: list[str]) -> Domain | None:
    """What a choice stands for; None, and a mistake, where it is none."""
    fault = _fault_of_number(node) if NUMBER in node else _fault_of_values(node[ONE_OF])
    if fault:
        mistakes.append(f"{where}: {fault}")
        return None
    if ONE_OF in node:
        return OneOf(values=tuple(node[ONE_OF]))
    low, high = node[NUMBER]
    return Between(low=low, high=high, step=node.get("step"), log=node.get("log", False))


def _fault_of_values(values: Any) -> str | None:
    if not isinstance(values, list) or not values:
        return "choices: a list of values to choose from, such as {choices: [0.25, 0.5]}"
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    return f"choices: {twice[0]!r} is given twice" if twice else None


def _fault_of_number(node: Mapping[str, Any]) -> str | None:
    given, step, log = node[NUMBER], node.get("step"), node.get("log", False)
    if not isinstance(given, list) or len(given) != 2 or not all(map(_is_number, given)) or not given[0] < given[1]:
        return f"between: {given!r} is not two numbers, the lower first, such as {{between: [0.2, 0.8]}}"
    if not isinstance(log, bool):
        return f"log: {log!r} is not true or false"
    if log and (step is not None or given[0] <= 0):
        return "log: takes no step, and two numbers above 0"
    return None if step is None else _fault_of_step(step, *given)


def _fault_of_step(step: Any, low: int | float, high: int | float) -> str | None:
    if not _is_number(step) or step <= 0:
        return f"step: {step!r} is not a number above 0"
    steps = (high - low) / step
    if math.isclose(steps, round(steps), rel_tol=0, abs_tol=1e-6):
        return None
    right = _rounded(low + math.floor(steps) * step)
    return f"step: {high} is not {low} and a whole number of steps of {step}; {right} would be"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
