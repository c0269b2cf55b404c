"""What search.json holds, and a trial in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compress.cache import versions
from compress.report.derived.chosen import chosen_in_words, value_in_words
from compress.report.derived.numbers import lasted
from compress.search.bench import Bench
from compress.search.front import Goals
from compress.search.loading import Searchable
from compress.search.space.domain import Domain, OneOf
from compress.search.trial import Trial
from export.host import host_facts, usable_cpus

FORMAT = 1
"""Of search.json; it changes when what is there means something else."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A search that is over."""

    why: str
    """Why no other trial was begun."""
    reference: Trial
    trials: Sequence[Trial]
    front: Sequence[Trial]


def record_of(found: Searchable, bench: Bench, ended: Ended, paths: Sequence[Path]) -> dict[str, Any]:
    """Everything about a search: search.json, and what its page shows."""
    task, _ = bench.task(found.first)
    goals, effort = found.goals, found.settings.effort
    return {
        "format": FORMAT,
        "name": found.name,
        "recipe": found.text,
        "effort": asdict(effort),
        "objectives": [_objective(goals, index) for index in range(len(goals.objectives))],
        "space": _space(found),
        "recipes": found.space.count(),
        "ended": ended.why,
        "rule": _rule(effort.margin),
        "reference": _trial(ended.reference, goals),
        "trials": [_trial(trial, goals) for trial in ended.trials],
        "front": list(_points(ended.front, goals, paths)),
        "exit_code": exit_code(goals, ended),
        "cases": {role: len(cases) for role, cases in task.data.cases.items() if role != "test"},
        "looks": _looks(ended),
        "source": task.data.source,
        "versions": _versions(effort.strategy),
        "host": host_facts(found.first.latency.threads or usable_cpus()),
    }


def exit_code(goals: Goals, ended: Ended) -> int:
    """0 where there is a front; 1 where limits leave nothing of what was measured; 3 where nothing was measured."""
    if ended.front:
        return 0
    return 1 if any(goals.values(trial) is not None for trial in ended.trials) else 3


def line_of(trial: Trial, found: Searchable) -> str:
    """A trial as the log tells of it."""
    goals = found.goals
    said = ", ".join(said_of(goals, trial))
    if trial.number == 0:
        return f"uncompressed: {said}"
    chosen = chosen_in_words(_space(found), trial.values)
    outcome = said if trial.state == "finished" else f"{trial.state}: {trial.why}"
    return f"trial {trial.number} of {found.settings.effort.trials} ({chosen}): {outcome} ({lasted(trial.seconds)})"


def said_of(goals: Goals, trial: Trial) -> list[str]:
    """What was measured, a few words for each objective: `Dice 0.8123`."""
    values = goals.values(trial)
    words = [word for word, _ in goals.objectives]
    found = [] if values is None else [value_in_words(*each) for each in zip(words, values, strict=True)]
    return [f"{title} {value}" for title, value in zip(goals.titles, found, strict=False)]


def _objective(goals: Goals, index: int) -> dict[str, Any]:
    word, objective = goals.objectives[index]
    options = {key: value for key, value in vars(objective).items() if not key.startswith("_")}
    place = goals.place(objective)
    options["class"] = options.pop("class_name", None)
    return {
        "objective": word,
        "title": goals.titles[index],
        "direction": objective.direction,
        **({} if place is None else asdict(place)),
        "options": {
            key: value for key, value in options.items() if value is not None and key not in ("backend", "device")
        },
    }


def _space(found: Searchable) -> list[dict[str, Any]]:
    """Of each decision its name, and its choices or its numbers."""
    return [{"name": each.name, **_domain(each.domain)} for each in found.space.decisions.values()]


def _domain(domain: Domain) -> dict[str, Any]:
    return {"choices": list(domain.values)} if isinstance(domain, OneOf) else asdict(domain)


def _trial(trial: Trial, goals: Goals) -> dict[str, Any]:
    return {**trial.as_dict(), "objectives": goals.values(trial)}


def _points(front: Sequence[Trial], goals: Goals, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for trial, path in zip(front, paths, strict=True):
        yield {
            "trial": trial.number,
            "objectives": goals.values(trial),
            "file": path.relative_to(path.parent.parent).as_posix(),
            "command": f"compress run {path}",
        }


def _looks(ended: Ended) -> dict[str, int]:
    """How often a network was scored on the validation cases, each once; and on test cases: never."""
    every = {look for trial in (ended.reference, *ended.trials) for look in trial.looks}
    return {"validation": len(every), "test": 0}


def _rule(margin: float | None) -> str:
    if margin is None:
        return "No trial is stopped before its export (margin: null)."
    return (
        "A trial is stopped before its export where, behind its last pass that trains, its network in torch scores "
        f"more than {margin:g} below a limit (at_least), or below a finished trial with no more MACs, parameters, "
        "bytes and bits."
    )


def _versions(strategy: str) -> dict[str, str]:
    vendor = "optuna" if strategy in ("tpe", "nsga2") else "nni" if strategy.startswith("nni_") else None
    return versions() if vendor is None else {**versions(), vendor: version(vendor)}
