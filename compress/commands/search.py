"""`compress search`: recipes of a space, made and measured one after the other; a layer around what `run` does.

Trials are scored on validation cases. What is on the front is written as recipes, which `compress run` scores on test
cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from compress import progress
from compress.cache import Cache, claimed, key_of
from compress.pipeline.deployment import deployments, reached
from compress.pipeline.log import written
from compress.pipeline.stages import tidy
from compress.report.search_page import to_html
from compress.search.bench import Bench
from compress.search.ending import places_timed, timed_again
from compress.search.front import front_of
from compress.search.loading import Searchable
from compress.search.measuring import Clock
from compress.search.points import write_points
from compress.search.proposing import Proposing, told_to
from compress.search.record import Ended, line_of, record_of
from compress.search.space.space import Choice
from compress.search.strategies.sampling.strategy import Start
from compress.search.trial import Trial
from export.files import write_bytes, write_json
from export.registry import named

Log = Callable[[str], None]


def search(found: Searchable, folder: Path, *, fresh: bool = False, say: Log = print) -> dict[str, Any]:
    """Try recipes in `folder`, or go on with what is finished there unless `fresh`; returns what search.json holds.

    Raises:
        NotHere: if what an objective asks for cannot be measured on this host.
    """
    recipe = found.first
    with claimed(folder, fresh=fresh), written(folder) as quiet, reached(deployments(recipe.devices, None), quiet):
        cache = Cache(folder)

        def log(line: str) -> None:
            quiet(line)
            say(line)

        clock = Clock(timing=recipe.latency, cache=cache, seed=recipe.seed, places=places_timed(found.goals))
        bench = Bench(cache=cache, goals=found.goals, margin=found.settings.effort.margin, log=quiet, clock=clock)
        log("measuring the uncompressed network")
        reference = bench.reference(recipe)
        log(line_of(reference, found))
        trials: list[Trial] = []
        why = _tried(found, bench, reference, trials, log)
        again = timed_again(bench, trials, lambda trial: bench.artifacts(_recipe(found, trial)), recipe.latency, log)
        front = front_of(found.goals, again)
        tidy(cache)
        ended = Ended(why=why, reference=reference, trials=_updated(trials, again), front=front)
        return publish(found, bench, ended, folder)


def _tried(found: Searchable, bench: Bench, reference: Trial, trials: list[Trial], log: Log) -> str:
    """Try one recipe after the other; why it ended."""
    effort, goals, key = found.settings.effort, found.goals, _first_key(found, bench)
    start = Start(space=found.space, directions=[each.direction for _, each in goals.objectives], seed=effort.seed)
    strategy = named("compress.search.strategies", effort.strategy)(start)
    proposing = Proposing(strategy=strategy, space=found.space, seed=effort.seed)
    with progress.steps("trials", effort.trials) as step:
        while len(trials) < effort.trials:
            if effort.minutes is not None and sum(trial.seconds for trial in trials) >= 60 * effort.minutes:
                return f"{effort.minutes:g} minutes of trials are over"
            proposal = proposing.next()
            if proposal is None:
                return "no recipe was left that had not been tried"
            number, key = len(trials) + 1, key_of(key, proposal.choice.text)
            trial = _kept(found, bench, number, key, proposal.choice, trials)
            trials.append(trial)
            proposing.learn(proposal, told_to(goals, trial, reference))
            log(f"{line_of(trial, found)}{_left(found, trials)}")
            step()
    return f"{effort.trials} trials are done"


def _kept(found: Searchable, bench: Bench, number: int, key: str, choice: Choice, before: Sequence[Trial]) -> Trial:
    """What became of a recipe; one that was finished by an earlier command is not tried again."""

    def work() -> dict[str, Any]:
        bench.log(f"trial {number}: {dict(choice.values)}")
        return bench.trial(number, partial(found.recipe, choice), choice, before).as_dict()

    return Trial.from_dict(bench.cache.value(f"trials/{number:04d}", key, work))


def _first_key(found: Searchable, bench: Bench) -> str:
    """What every trial depends on besides its recipe and the trials before it."""
    first = bench.task(found.first)[1]
    return key_of(first, found.settings.objectives, found.settings.effort.margin, found.first.latency)


def _recipe(found: Searchable, trial: Trial) -> Any:
    return found.recipe(found.space.of(trial.chosen))


def _left(found: Searchable, trials: Sequence[Trial]) -> str:
    """About how long the other trials will take."""
    effort, spent = found.settings.effort, sum(trial.seconds for trial in trials)
    left = spent / len(trials) * (effort.trials - len(trials))
    if effort.minutes is not None:
        left = min(left, max(0.0, 60 * effort.minutes - spent))
    return f"; about {progress.lasted(left)} left" if left else ""


def _updated(trials: Sequence[Trial], again: Sequence[Trial]) -> list[Trial]:
    newer = {trial.number: trial for trial in again}
    return [newer.get(trial.number, trial) for trial in trials]


def publish(found: Searchable, bench: Bench, ended: Ended, folder: Path) -> dict[str, Any]:
    """Write the front's recipes, search.html and, last, search.json."""
    paths = write_points(found, ended.front, bench, folder)
    record = record_of(found, bench, ended, paths)
    write_bytes(folder / "search.html", to_html(record).encode())
    write_json(folder / "search.json", record)
    return record
