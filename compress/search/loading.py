"""A recipe file with choices -> what a search needs, or a plain sentence for each mistake before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import RecipeError
from compress.recipe import Recipe
from compress.recipe.choices import SECTION, places, why_no_run
from compress.recipe.entries import Entries
from compress.recipe.form import read_sections
from compress.recipe.loading import text_of
from compress.report.derived.chosen import in_words
from compress.search.front import Goals
from compress.search.objectives.score import Score
from compress.search.settings import Settings, read_settings
from compress.search.space.domain import Between, OneOf
from compress.search.space.space import Choice, Decision, Space, space_of
from compress.search.strategies.random import drawn
from export.registry import backends_of

TRIED = 20
"""Recipes, drawn by chance, in which a value is tried before it is said to be wrong in all of them."""


@dataclass(frozen=True, kw_only=True)
class Searchable:
    """A recipe with choices, read and checked."""

    path: Path
    data_root: Path | None
    """Another data folder than the recipe's."""
    name: str
    text: Mapping[str, Any]
    """As the file has it."""
    space: Space
    settings: Settings
    first: Recipe
    """Of the first value of every choice."""

    @property
    def goals(self) -> Goals:
        names = [device.name for device in self.first.devices]
        return Goals(objectives=self.settings.objectives, device=names[0], devices=names)

    def in_words(self) -> str:
        """How much there is to choose from, and how it is tried."""
        count, effort = self.space.count(), self.settings.effort
        many = f"{count:,}" if count is not None else "over 10,000"
        decisions = len({each.name for each in self.space.decisions.values()})
        return f"{decisions} decisions, {many} recipes; {effort.trials} trials by {effort.strategy}"

    def recipe(self, choice: Choice) -> Recipe:
        """The recipe of these choices.

        Raises:
            RecipeError: where this combination is none.
        """
        recipe, mistakes = read_choice(self.path, choice)
        if mistakes or recipe is None:
            raise RecipeError(str(self.path), mistakes)
        return recipe


def has_choices(path: Path) -> bool:
    """Whether a recipe is for `compress search`.

    Raises:
        RecipeError: if it cannot be read.
    """
    return why_no_run(text_of(path)) is not None


def load(path: Path, data_root: Path | None = None) -> Searchable:
    """Read and check a recipe with choices: each value of each of them is tried in its place.

    Raises:
        RecipeError: with every mistake found, each with its place.
    """
    text = text_of(path, data_root)
    if why_no_run(text) is None:
        raise RecipeError(str(path), ["has no choices and no section 'search': `compress run` runs it; docs/search.md"])
    entries = Entries(path)
    if SECTION not in text:
        entries.mistakes.append(
            "lacks the section 'search', such as search: {trials: 30, objectives: [score, size_mb]}"
        )
    space, mistakes = space_of(text)
    settings = read_settings(entries, text) if SECTION in text else None
    mistakes = [*entries.mistakes, *mistakes, *_without_effect(text)]
    if settings is None or mistakes:
        raise RecipeError(str(path), mistakes)
    first, wrong = _checked(path, space)
    if first is None or wrong:
        raise RecipeError(str(path), wrong)
    found = Searchable(
        path=path, data_root=data_root, name=first.name, text=text, space=space, settings=settings, first=first
    )
    if wrong := list(_faults(found)):
        raise RecipeError(str(path), wrong)
    return found


def read_choice(path: Path, choice: Choice) -> tuple[Recipe | None, list[str]]:
    """The recipe of these choices, and its mistakes."""
    entries = Entries(path)
    recipe = read_sections(entries, dict(choice.text))
    return recipe, entries.mistakes


def _checked(path: Path, space: Space) -> tuple[Recipe | None, list[str]]:
    """The recipe of the first values, and a mistake for each value that is wrong in every recipe it was tried in."""
    rng = np.random.default_rng(0)
    others = [space.choice(lambda decision: drawn(decision, rng)) for _ in range(TRIED)]
    read = {choice.key: read_choice(path, choice) for choice in (space.of({}), *others)}
    # What is wrong whatever is chosen has nothing to do with choices.
    always = [line for line in next(iter(read.values()))[1] if all(line in mistakes for _, mistakes in read.values())]
    right = next((recipe for recipe, mistakes in read.values() if recipe is not None and not mistakes), None)
    if always:
        return right, always
    wrong: list[str] = []
    for where, decision in space.decisions.items():
        for value in _ends(decision):
            wrong += _fault_of(path, space, where, decision, value, others)
    return right, list(dict.fromkeys(wrong))


def _ends(decision: Decision) -> Sequence[int | float]:
    domain = decision.domain
    return domain.listed() if isinstance(domain, OneOf) else (domain.low, domain.high)


def _fault_of(
    path: Path, space: Space, where: str, decision: Decision, value: int | float, others: Sequence[Choice]
) -> list[str]:
    """A mistake where a value is wrong in whatever recipe it stands."""
    told: list[str] | None = None
    for given in (_around(space, where), *(each.chosen for each in others)):
        choice = space.of({**given, decision.name: value})
        if decision.name not in choice.values:
            continue
        recipe, mistakes = read_choice(path, choice)
        if recipe is not None and not mistakes:
            return []
        told = told if told is not None else mistakes
    if not told:
        return []
    shown = value if isinstance(decision.domain, Between) else in_words(decision.domain.values[int(value)])
    return [f"{decision.name}: with {shown}: {line}" for line in told[:1]]


def _around(space: Space, where: str) -> dict[str, int | float]:
    """The choices among whose values a decision stands."""
    # A key may have such a mark in it, too.
    marks = [each for each in re.finditer(r"\|(\d+)", where) if where[: each.start()] in space.decisions]
    return {space.decisions[where[: each.start()]].name: int(each[1]) for each in marks}


def _without_effect(text: Mapping[str, Any]) -> Iterator[str]:
    """What no trial reads: choices there would be tried in vain, one recipe as often as there are values."""
    for section in ("name", "gates", "latency"):
        for where in places(text.get(section), section):
            # How many threads a network has is part of what is measured.
            if where not in ("latency", "latency.threads"):
                yield f"{where}: what is chosen here makes no difference to a trial; give one value"
    if text.get("compare"):
        yield "compare: a search compares its own trials; leave it out, or run a recipe of the front with it"


def _faults(found: Searchable) -> Iterator[str]:
    """What the objectives ask for and the recipe has not."""
    objectives, devices = found.settings.objectives, {device.name: device for device in found.first.devices}
    if not any(isinstance(each, Score) for _, each in objectives):
        yield "search.objectives: lacks score: without it the smallest network is best, whatever it answers"
    if found.settings.effort.strategy == "grid" and found.space.endless:
        yield f"search.strategy: grid takes numbers in steps: give {found.space.endless[0]} a step, or choices"
    for index, (word, objective) in enumerate(objectives):
        at, where = found.goals.place(objective), f"search.objectives[{index}] ({word})"
        if at is None:
            continue
        if at.device not in devices:
            yield f"{where}: the recipe has no device '{at.device}'; there are {', '.join(devices)}"
        elif at.backend not in backends_of(devices[at.device]):
            there = ", ".join(backends_of(devices[at.device]))
            yield f"{where}: {at.device} has no backend '{at.backend}'; there are {there}"
