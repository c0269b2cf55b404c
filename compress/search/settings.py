"""The section `search:` of a recipe: how many trials, what proposes them, and what they are to be good at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic import ConfigDict, Field

from compress.recipe.entries import Entries
from compress.search.objectives.judging.objective import Objectives
from export.registry import named, words


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Effort:
    """How a search is done, but for what it looks for."""

    trials: Annotated[int, Field(ge=1)] = 30
    """How many recipes are tried, those refused or stopped early included."""
    strategy: str = "tpe"
    """What proposes the next recipe: tpe or nsga2 (from Optuna), nni_evolution, nni_tpe or nni_random (from NNI),
    random, or grid, which tries one after the other."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    """Of the strategy; the recipe's own seed is that of training."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """No trial is begun once trials have taken so long, all commands in the folder together; None: no limit."""
    margin: Annotated[float, Field(gt=0, lt=1)] | None = 0.03
    """A trial is stopped before its export where, on validation cases in torch, it scores more than this below
    `at_least`, or below a finished trial with no more MACs, parameters, bytes and bits; None stops none."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole section."""

    effort: Effort
    objectives: Objectives


def read_settings(entries: Entries, text: Mapping[str, Any]) -> Settings | None:
    """The section, or a mistake for what is wrong with it, each with its place."""
    given = text.get("search", {})
    if not isinstance(given, dict):
        entries.mistakes.append("search: options, such as {trials: 30, objectives: [score, size_mb]}")
        return None
    objectives = _objectives(entries, given)
    effort = entries.options(Effort, {key: value for key, value in given.items() if key != "objectives"}, "search")
    if effort is not None:
        entries.check_known(effort.strategy, words("compress.search.strategies"), "search: no strategy")
    return None if effort is None or not objectives else Settings(effort=effort, objectives=objectives)


def _objectives(entries: Entries, given: dict[str, Any]) -> Objectives:
    where = "search.objectives"
    listed = given.get("objectives")
    if not isinstance(listed, list) or not listed:
        entries.mistakes.append(f"{where}: a list of what counts, such as [score, latency_ms, size_mb]")
        return ()
    found = []
    for index, entry in enumerate(listed):
        chosen = entries.word(entry, words("compress.search.objectives"), f"{where}[{index}]", "objective")
        if chosen is None:
            continue
        made = entries.options(
            named("compress.search.objectives", chosen[0]), chosen[1], f"{where}[{index}] ({chosen[0]})"
        )
        if made is not None:
            found.append((chosen[0], made))
    if len(set(found)) < len(found):
        entries.mistakes.append(f"{where}: the same objective is given twice")
    return found
