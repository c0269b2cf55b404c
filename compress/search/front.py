"""Which trials are on the front: those that no other is at least as good as in everything, and better in something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from compress.gates.judging.artifacts import is_device
from compress.search.objectives.judging.objective import Objective, Objectives, Place
from compress.search.trial import Trial

Values = Sequence[float]
"""One number for each objective, in their order."""


@dataclass(frozen=True, kw_only=True)
class Goals:
    """The objectives of a search."""

    objectives: Objectives
    device: str
    """The recipe's first, which an objective without `device` means."""
    devices: Sequence[str] = ()
    """All of the recipe's: `orin_nano` means `orin_nano@tower-7` where there is no other, as in a gate."""

    def place(self, objective: Objective) -> Place | None:
        """Where an objective is measured; None for what is the same everywhere."""
        at = objective.place(self.device)
        meant = [name for name in self.devices if at is not None and is_device(at.device, name)]
        return replace(at, device=meant[0]) if at is not None and len(meant) == 1 else at

    @property
    def places(self) -> list[Place]:
        """Where something is measured, each place once."""
        found = (self.place(each) for _, each in self.objectives)
        return list(dict.fromkeys(place for place in found if place is not None))

    @property
    def titles(self) -> list[str]:
        """What each is called, with its place where there are several."""
        several = len(self.places) > 1
        places = [(each.title, self.place(each)) for _, each in self.objectives]
        return [f"{title}, {place}" if several and place else title for title, place in places]

    def values(self, trial: Trial) -> list[float] | None:
        """A number for each; None where one is missing."""
        found: list[float] = []
        for _, objective in self.objectives:
            place = self.place(objective)
            measured = trial.measured.get(place) if place else next(iter(trial.measured.values()), None)
            value = None if measured is None else objective(measured)
            if value is None:
                return None
            found.append(value)
        return found

    def within(self, values: Values) -> bool:
        """Whether every limit (`at_least`, `at_most`) holds."""
        return all(each.within(value) for (_, each), value in zip(self.objectives, values, strict=True))

    def dominates(self, one: Values, other: Values) -> bool:
        """Whether the first is as good in everything, and better in something."""
        pairs = list(zip(self._losses(one), self._losses(other), strict=True))
        return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)

    def front(self, values: Mapping[int, Values]) -> list[int]:
        """The trials (by number) on the front within every limit, the best of the first objective first."""
        good = {number: each for number, each in values.items() if self.within(each)}
        kept = [
            number for number, each in good.items() if not any(self.dominates(other, each) for other in good.values())
        ]
        # Equals stand there once: the first that was found.
        first = {tuple(good[number]): number for number in reversed(kept)}
        return sorted(first.values(), key=lambda number: (self._losses(good[number]), number))

    def _losses(self, values: Values) -> list[float]:
        """The values, of which each is the better the less it is."""
        signs = [-1 if each.direction == "maximize" else 1 for _, each in self.objectives]
        return [sign * value for sign, value in zip(signs, values, strict=True)]


def front_of(goals: Goals, trials: Sequence[Trial]) -> list[Trial]:
    """The trials on the front."""
    by_number = {trial.number: trial for trial in trials if trial.state == "finished"}
    values = {number: found for number, trial in by_number.items() if (found := goals.values(trial)) is not None}
    return [by_number[number] for number in goals.front(values)]
