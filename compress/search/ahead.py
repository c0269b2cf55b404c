"""A trial made by another process, all but its times: what it leaves in the folder, the search finds there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from compress.cache import Cache
from compress.errors import SurroundingsError
from compress.pipeline.log import written
from compress.search.bench import Bench
from compress.search.loading import load
from compress.search.measuring import Clock
from compress.search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Order:
    """What another process is told of a trial."""

    recipe: Path
    data: Path | None
    """Another data folder than the recipe's."""
    folder: Path
    """Of the search; on another machine, by the same path."""
    number: int
    chosen: Mapping[str, int | float]
    before: Sequence[Mapping[str, Any]]


def made(order: Order) -> dict[str, Any]:
    """Do all of a trial but its times; its record, whose `measured` is not to be used.

    Raises:
        SurroundingsError: if the search's folder is not seen from here.
    """
    if not (order.folder / ".lock").is_file():
        raise SurroundingsError(f"{order.folder}: is not seen by a worker: every machine must have it by this path")
    found = load(order.recipe, order.data)
    cache = Cache(order.folder, own=f"worker-{os.getpid()}")
    clock = Clock(timing=found.first.latency, cache=cache, seed=found.first.seed, places=())
    with written(order.folder) as log:
        margin = found.settings.effort.margin
        bench = Bench(cache=cache, goals=found.goals, margin=margin, log=log, clock=clock, elsewhere=False)
        choice = found.space.of(order.chosen)
        before = [Trial.from_dict(each) for each in order.before]
        return bench.trial(order.number, partial(found.recipe, choice), choice, before).as_dict()
