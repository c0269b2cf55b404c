"""`compress search`: recipes of a space, made and measured one after the other; a layer around what `run` does.

Trials are scored on validation cases. What is on the front is written as recipes, which `compress run` scores on test
cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compress.cache import Cache, claimed
from compress.cluster import ALONE, Workers, opened
from compress.pipeline.deployment import deployments, reached
from compress.pipeline.log import written
from compress.pipeline.stages import tidy
from compress.recipe import Recipe
from compress.report.search_page import to_html
from compress.search.bench import Bench
from compress.search.ending import places_timed, timed_again
from compress.search.front import front_of
from compress.search.loading import Searchable
from compress.search.loop import Loop, proposing_of
from compress.search.measuring import Clock
from compress.search.points import write_points
from compress.search.record import Ended, line_of, record_of
from compress.search.trial import Trial
from export.files import write_bytes, write_json

Log = Callable[[str], None]


def search(
    found: Searchable, folder: Path, *, fresh: bool = False, say: Log = print, workers: Workers = ALONE
) -> dict[str, Any]:
    """Try recipes in `folder`, or go on with what is finished there unless `fresh`; returns what search.json holds.

    Args:
        workers: make several trials at once. Latencies are timed one at a time, by this process, while they wait.

    Raises:
        NotHere: if what an objective asks for cannot be measured on this host.
        MissingExtra: if the strategy is a library's that is not installed.
    """
    recipe, proposing = found.first, proposing_of(found)
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
        with opened(workers, log) as processes:
            loop = Loop(
                found=found, bench=bench, reference=reference, processes=processes, proposing=proposing, log=log
            )
            why = loop.run()

        def recipe_of(trial: Trial) -> Recipe:
            return found.recipe(found.space.of(trial.chosen))

        again = timed_again(bench, loop.trials, lambda trial: bench.artifacts(recipe_of(trial)), recipe.latency, log)
        tidy(cache)
        front = front_of(found.goals, again)
        ended = Ended(why=why, reference=reference, trials=_updated(loop.trials, again), front=front)
        return publish(found, bench, ended, folder)


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
