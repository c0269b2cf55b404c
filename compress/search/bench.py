"""What the trials of one search are made and measured with: one folder, in which what they share is done once.

A network's name is its key, so that the same passes of the same network are the same step, whichever trial asks.
Test cases are not there: the data of a trial has none.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from compress.cache import Cache, code_key, key_of, versions
from compress.cluster import alone
from compress.contracts import Pass
from compress.data.dataset.cases import Role
from compress.data.dataset.oddities import oddities
from compress.errors import DataError, NotHere, RecipeError, SegpressError, SurroundingsError
from compress.networks.foreign.notes import note_on
from compress.pipeline.build import Build, Builder
from compress.pipeline.deployment import Deployment, deployments
from compress.pipeline.first_key import first_key
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import Stage, after, baseline, key_after
from compress.pipeline.training import trained_into
from compress.progress import at_work
from compress.recipe import Recipe
from compress.search.foreseen import faults_of_scores, refuse_no_validation
from compress.search.front import Goals
from compress.search.measuring import Clock, in_torch, on_artifact
from compress.search.objectives.judging.objective import Measured, Place
from compress.search.objectives.score import Score
from compress.search.space.space import Choice
from compress.search.stopping import Sight, why_stopped
from compress.search.trial import Trial
from compress.task import Task
from export.errors import REFUSALS, first_line
from export.files import make_folder, sha256
from export.to_onnx import Style

Log = Callable[[str], None]
SEEN: tuple[Role, ...] = ("train", "calibration", "val")
"""Whose files are read."""
_BITS = {"float": 32, "half": 16}
_WORDS = {"float": "32 bits", "half": "16 bits", "integers": "integers"}


class _Refused(Exception):
    """A combination that cannot be: its sentence."""


class _Stopped(Exception):
    """A trial that is not worth its export: why."""


@dataclass(kw_only=True)
class Bench:
    """Makes and measures trials."""

    cache: Cache
    goals: Goals
    margin: float | None
    log: Log
    """Of what passes and runtimes say."""
    clock: Clock
    elsewhere: bool = True
    """Whether devices that are reached over SSH are asked, which takes one process at a time."""
    _tasks: dict[str, tuple[Task, str]] = field(default_factory=dict)

    def reference(self, recipe: Recipe) -> Trial:
        """The uncompressed network, as trial 0, which latencies are timed in turns with.

        Raises:
            NotHere: if what an objective asks for cannot be measured here.
            DataError: if there are no validation cases, or the network finds nothing in them.
        """
        for at in self.deployed(recipe).values():
            if at is not None and (why := at.not_here()):
                raise NotHere(f"{at.title}: {why}: nothing can be measured there; name another place in objectives")
        task, _ = self.task(recipe)
        wrong = list(faults_of_scores(self.scores, task.data))
        if wrong:
            raise RecipeError(str(recipe.source), wrong)
        making = _Making(bench=self, recipe=replace(recipe, passes=()), before=(), number=0)
        builds = making.builds(making.begin())
        self.clock.begin(builds, task)
        trial = making.finished(builds)
        _refuse_blind(trial, self.goals, task)
        return trial

    def trial(self, number: int, read: Callable[[], Recipe], choice: Choice, before: Sequence[Trial]) -> Trial:
        """Make, build and measure one recipe.

        Args:
            read: gives the recipe, or refuses this combination.
            before: the trials before it, which say what is worth an export.
        """
        try:
            outcome = _Making(bench=self, recipe=read(), before=before, number=number).outcome()
        except RecipeError as error:
            outcome = Trial(number=number, state="refused", why="; ".join(error.mistakes))
        return replace(outcome, chosen=dict(choice.chosen), values=dict(choice.values))

    def artifacts(self, recipe: Recipe) -> tuple[dict[Place, Build], Task]:
        """What was built of a recipe, and its task; whatever is gone is made again."""
        making = _Making(bench=self, recipe=recipe, before=(), number=0)
        return making.builds(making.end()), self.task(recipe)[0]

    @property
    def scores(self) -> list[Score]:
        """The objectives that are scores."""
        return [each for _, each in self.goals.objectives if isinstance(each, Score)]

    def task(self, recipe: Recipe) -> tuple[Task, str]:
        """The task of a recipe, without test cases, and the key of its first network; made once for all trials alike.

        Raises:
            DataError: if a file is wrong, or there are no validation cases.
        """
        same = ("network", "data", "seed", "dynamic", "postprocess", "train")
        which = key_of(*(recipe.text.get(key) for key in same))
        if which not in self._tasks:
            recipe = self.trained(recipe)
            whole = recipe.task()
            data = replace(whole.data, cases={**whole.data.cases, "test": ()})
            refuse_no_validation(data)
            task = replace(whole, data=data)
            key = first_key(recipe, task)
            notes = self.cache.value(f"data-{key[:12]}", key, lambda: oddities(data, data.check(SEEN)))
            note_on(task.net, *notes)
            self._tasks[which] = task, key
        return self._tasks[which]

    def trained(self, recipe: Recipe) -> Recipe:
        """The recipe with weights: where it names none and says how to train, those that come of it, trained once."""
        if recipe.weights is not None or recipe.train is None:
            return recipe
        data = recipe.dataset()
        data = replace(data, cases={**data.cases, "test": ()})
        key = key_of(code_key(), versions(), recipe.network, recipe.train, recipe.seed, data.fingerprint())
        folder = make_folder(self.cache.folder / "trained" / key[:12])

        def work() -> str:
            self.log(f"training {recipe.network}")
            with at_work("training the network"):
                return sha256(trained_into(folder, recipe, self.log))

        path, name = folder / "net.safetensors", f"trained-{key[:12]}"
        with self.alone(name):
            kept = self.cache.value(name, key, work)
            if not path.is_file() or sha256(path) != kept:
                self.log(f"{path}: is gone or was changed; training again")
                (self.cache.folder / "kept" / f"{name}.json").unlink(missing_ok=True)
                self.cache.value(name, key, work)
        return replace(recipe, weights=path)

    def alone(self, name: str) -> AbstractContextManager[None]:
        """While open, no other process of the search does what has this name."""
        return alone(self.cache.folder / "kept", name)

    def deployed(self, recipe: Recipe) -> dict[Place, Deployment | None]:
        """Where the recipe's artifacts are measured; None where it has no such device."""
        every = {
            Place(backend=at.backend, device=at.device.name): at
            for at in deployments(recipe.devices, recipe.latency.threads)
        }
        found = {place: every.get(place) for place in self.goals.places}
        return {place: at for place, at in found.items() if self.elsewhere or at is None or at.target.is_this_host}


@dataclass(kw_only=True)
class _Making:
    """One trial while it is made."""

    bench: Bench
    recipe: Recipe
    before: Sequence[Trial]
    number: int
    steps: list[dict[str, Any]] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    last: Stage | None = None
    stored_bytes: int | None = None
    begun: float = field(default_factory=time.perf_counter)

    def outcome(self) -> Trial:
        """What became of it; a combination that is refused is an outcome too."""
        try:
            return self.finished(self.builds(self._passed(self.begin())))
        except _Stopped as why:
            return self._trial(state="stopped", why=str(why))
        except SurroundingsError:
            raise
        except (_Refused, SegpressError) as why:
            return self._trial(state="refused", why=" ".join(str(why).split()))
        except REFUSALS as error:
            # One recipe of many that something does not take, or that needs too much memory, ends no search of a night.
            self.bench.log("".join(traceback.format_exception(error)))
            why_not = f"unexpected {type(error).__name__}: {first_line(error, 200)}; its trace is in log.txt"
            return self._trial(state="refused", why=why_not)

    def begin(self) -> Stage:
        task, key = self.bench.task(self.recipe)
        name = self._name("baseline", key)
        with self.bench.alone(name):
            self.last = baseline(task, key, self.bench.cache, self.bench.log, name)
        return self.last

    def _passed(self, stage: Stage) -> Stage:
        """The network after all passes, if none of those on the way is too far behind."""
        passes = self.recipe.passes
        self._look(stage, passes)
        for index in range(len(passes)):
            stage = self._after(stage, index)
            self._look(stage, passes[index + 1 :])
        return stage

    def end(self) -> Stage:
        """The network after all passes, wherever it stands among others."""
        stage = self.begin()
        for index in range(len(self.recipe.passes)):
            stage = self._after(stage, index)
        return stage

    def _after(self, before: Stage, index: int) -> Stage:
        word, step = self.recipe.passes[index]
        task, cache = self.bench.task(self.recipe)[0], self.bench.cache
        key = key_after(before, word, step)
        name, begun = self._name(word, key), time.perf_counter()
        with self.bench.alone(name):
            shared = cache.holds(name, key)
            self.last = after(before, name, (word, step), task, cache, self.bench.log)
        seconds = round(time.perf_counter() - begun, 1)
        self.steps.append({"step": name, "word": word, "seconds": seconds, "shared": shared})
        return self.last

    def _look(self, stage: Stage, to_come: Sequence[tuple[str, Pass]]) -> None:
        """Stop where nothing that is still to come can make up for what the network in torch lacks."""
        if self.bench.margin is None or stage.precision != "float" or any("train" in step.uses for _, step in to_come):
            return
        task, _ = self.bench.task(self.recipe)
        self.scores = self._in_torch(stage, task)
        self.stored_bytes = stage.path.stat().st_size
        sight = Sight(
            scores=self.scores,
            macs=stage.macs,
            params=stage.params,
            stored_bytes=self.stored_bytes,
            bits=_bits_behind(self.recipe),
            is_final=all(step.ensures != "float" for _, step in to_come),
        )
        why = why_stopped(sight, self.bench.scores, self.before, self.bench.margin)
        if why:
            raise _Stopped(why)

    def _in_torch(self, stage: Stage, task: Task) -> list[float]:
        self.looks.append(f"{stage.name} in torch")
        found = Measured(
            scores=in_torch(stage, task, self.bench.cache),
            latency_ms=None,
            size_mb=0.0,
            macs=stage.macs,
            params=stage.params,
            bit_operations=None,
        )
        # A class that no answer is scored on is told of before the first trial.
        return [each(found) or 0.0 for each in self.bench.scores]

    def builds(self, stage: Stage) -> dict[Place, Build]:
        """The network's artifact wherever an objective asks for it."""
        task, _ = self.bench.task(self.recipe)
        style = Style(opset=self.recipe.opset, dynamic=self.recipe.dynamic)
        builder = Builder(task, style, self.bench.cache, self.bench.log, PeakMemory(at_once=0))
        found: dict[Place, Build] = {}
        for place, at in self.bench.deployed(self.recipe).items():
            if at is None:
                raise _Refused(f"{place}: this recipe has no such device")
            with self.bench.alone(f"build-{stage.name}"):
                build = builder.build(stage, at)
            if build is None:
                raise _Refused(f"{place}: {at.backend} takes no network in {_WORDS[stage.precision]}")
            if build.artifact is None:
                raise _Refused(f"{place}: {build.absent}")
            found[place] = build
        return found

    def finished(self, builds: Mapping[Place, Build]) -> Trial:
        """The trial with everything measured."""
        task, _ = self.bench.task(self.recipe)
        scores = {place: self._scored(place, build, task) for place, build in builds.items()}
        times = self.bench.clock.times(builds, task) if self.number else self.bench.clock.first
        measured = {place: _measured(build, scores[place], times.get(place)) for place, build in builds.items()}
        return replace(self._trial(state="finished"), measured=measured)

    def _scored(self, place: Place, build: Build, task: Task) -> Mapping[str, Any]:
        self.looks.append(build.name)
        found = on_artifact(build, task, self.bench.cache, self.bench.log)
        if found["reason"] is not None:
            raise _Refused(f"{place}: {found['reason']}")
        return found["scores"]

    def _trial(self, state: Any, why: str | None = None) -> Trial:
        stage = self.last
        return Trial(
            number=self.number,
            state=state,
            why=why,
            steps=self.steps,
            params=None if stage is None else stage.params,
            macs=None if stage is None else stage.macs,
            bits=_bits_behind(self.recipe),
            stored_bytes=self.stored_bytes,
            torch_scores=self.scores,
            looks=self.looks,
            seconds=round(time.perf_counter() - self.begun, 6),
        )

    def _name(self, word: str, key: str) -> str:
        """A name of its own for each network, and each way of writing it."""
        return f"{word}-{key_of(key, self.recipe.opset)[:12]}"


def _bits_behind(recipe: Recipe) -> int:
    """Of a weight behind the last pass; those that put weights into integers say how many, or 8."""
    last = recipe.passes[-1][1] if recipe.passes else None
    ensured = "float" if last is None else last.ensures
    return int(getattr(last, "bits", 8)) if ensured == "integers" else _BITS[ensured]


def _measured(build: Build, scores: Mapping[str, Any], times: Mapping[str, Any] | None) -> Measured:
    assert build.artifact is not None
    return Measured(
        scores=scores,
        latency_ms=times,
        size_mb=round(build.artifact.size_mb, 6),
        macs=build.stage.macs,
        params=build.stage.params,
        bit_operations=build.bit_operations,
    )


def _refuse_blind(trial: Trial, goals: Goals, task: Task) -> None:
    """Stop before any trial if the uncompressed network finds nothing: every trial would be as good."""
    for _, objective in goals.objectives:
        if isinstance(objective, Score):
            at = goals.place(objective)
            assert at is not None, "a score is measured somewhere"
            value = objective(trial.measured[at])
            if not value:
                raise DataError(
                    f"{task.data.source}: the uncompressed network's {objective.title} is {value or 0:.4f} on the "
                    f"{len(task.data.cases['val'])} validation cases, so no trial can be told from another; see its "
                    "normalization, its classes and the masks (compress check)"
                )
