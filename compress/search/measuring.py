"""Scores on validation cases, in torch and of artifacts; and times, in turns with the uncompressed network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from compress import progress
from compress.cache import Cache, key_of, versions
from compress.measure.latency import Samples, Timing, in_turns
from compress.measure.segmentation import scores_of
from compress.pipeline.build import Build
from compress.pipeline.measure import Answers, all_open
from compress.pipeline.stages import Stage
from compress.pipeline.watch import power_modes
from compress.search.objectives.judging.objective import Place
from compress.task import Task
from export.artifact import Infer
from export.backends.torch import infer_from_module

REFERENCE = "reference"
Record = dict[str, Any]
Log = Callable[[str], None]
SHORT = Timing(samples=60, seconds=3.0, warm_up=0.5)
"""How a trial is timed at most, while the search goes on: those that may be on the front are timed again at its end."""


def in_torch(stage: Stage, task: Task, cache: Cache) -> Record:
    """Scores of a network in torch on the validation cases."""
    key = key_of(stage.key, task.postprocess)
    return dict(cache.value(f"val-{stage.name}", key, lambda: _scores(infer_from_module(stage.net), stage.name, task)))


def on_artifact(build: Build, task: Task, cache: Cache, log: Log) -> Record:
    """`scores` of a built artifact on the validation cases; or the `reason` why it is not its network in torch."""

    def work() -> Record:
        assert build.artifact is not None
        backend, answers = build.deployment.open(), Answers(task)
        with backend.open(build.artifact) as infer:
            fault = answers.fault(build, backend, answers.parity(build, infer), log)
            return {"scores": None if fault else _scores(infer, build.name, task), "reason": fault}

    return dict(cache.value(f"val-{build.name}", key_of(build.key, task.data.fingerprint(), task.postprocess), work))


def _scores(infer: Infer, name: str, task: Task) -> Record:
    """Means over all cases and classes, without distances between surfaces."""
    cases = task.data.cases["val"]
    with progress.steps(f"scoring {name}", len(cases)) as step:
        scored = []
        for case in cases:
            scored.append(task.score(infer, case, surfaces=False))
            step()
    found = scores_of([(case.name, case.unit) for case in cases], scored, task.data.class_names[1:]).as_dict()
    return {key: value for key, value in found.items() if key not in ("per_case", "confusion")}


@dataclass(kw_only=True)
class Clock:
    """Times artifacts, each in turns with the uncompressed network on the same runtime and device.

    A host is now faster and now slower: a time is told as it would have been when the search began, by what the
    uncompressed network takes meanwhile.
    """

    timing: Timing
    cache: Cache
    seed: int
    places: Sequence[Place]
    """Where something is timed; nothing, where no objective asks for times."""
    _reference: dict[Place, tuple[Build, Task]] = field(default_factory=dict)
    first: dict[Place, Record] = field(default_factory=dict)
    """How long the uncompressed network took when the search began, in ms."""

    def begin(self, builds: Mapping[Place, Build], task: Task) -> None:
        """Take these, the uncompressed network's, to time the others with."""
        self._reference = {place: (builds[place], task) for place in self.places}
        for place, (build, _) in self._reference.items():
            key = key_of(build.key, self.timing, versions())
            name = f"clock-{build.name}"
            alone = partial(self._in_turns, {REFERENCE: (build, task)}, short(self.timing))
            self.first[place] = dict(self.cache.value(name, key, alone)[REFERENCE])

    def times(self, builds: Mapping[Place, Build], task: Task) -> dict[Place, Record]:
        """How long these take, in ms; not kept, since a trial is."""
        short_one = short(self.timing)
        return {place: self.together({"": (builds[place], task)}, place, short_one)[""] for place in self.places}

    def together(self, given: Mapping[str, tuple[Build, Task]], place: Place, timing: Timing) -> dict[str, Record]:
        """How long these take in one session, in ms, by any name."""
        found = self._in_turns({REFERENCE: self._reference[place], **given}, timing)
        factor = self.first[place]["p50"] / found[REFERENCE]["p50"]
        return {name: _scaled(record, factor) for name, record in found.items() if name != REFERENCE}

    def _in_turns(self, given: Mapping[str, tuple[Build, Task]], timing: Timing) -> dict[str, Record]:
        builds = [build for build, _ in given.values()]
        with power_modes(builds), all_open(builds) as infers, progress.steps("timing", None) as step:
            clocks = {
                name: partial(build.deployment.target.time, infers[build.name], self._images(task))
                for name, (build, task) in given.items()
            }
            samples: Mapping[str, Samples] = in_turns(clocks, timing, self.seed, step)
        return {name: each.as_dict() for name, each in samples.items()}

    def _images(self, task: Task) -> list[np.ndarray]:
        order = np.random.default_rng(self.seed).permutation(len(task.data.cases["val"]))
        return [task.data.image(task.data.cases["val"][which])[None] for which in order[:32]]


def short(timing: Timing) -> Timing:
    """As the recipe says, but no longer than a trial is worth."""
    return replace(
        timing,
        samples=min(timing.samples, SHORT.samples),
        seconds=min(timing.seconds, SHORT.seconds),
        warm_up=min(timing.warm_up, SHORT.warm_up),
    )


def _scaled(record: Record, factor: float) -> Record:
    """The times of a record at another clock; `clock` is what they were multiplied by."""
    times = ("min", "p50", "p90", "p95", "p99", "max")
    scaled = {key: round(value * factor, 3) if key in times else value for key, value in record.items()}
    limits = record["p50_limits"]
    return {**scaled, "p50_limits": limits and [round(each * factor, 3) for each in limits], "clock": round(factor, 4)}
