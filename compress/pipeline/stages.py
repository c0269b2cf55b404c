"""The network after each step, saved as it is made, and loaded only when something needs it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from compress.cache import Cache, key_of
from compress.contracts import Pass
from compress.errors import PassError, RecipeError
from compress.measure.complexity import Cost, cost_of
from compress.measure.macs import macs_of
from compress.networks.foreign.notes import notes_of
from compress.networks.foreign.repeatable import of_the_batch, why_otherwise
from compress.postprocess.applying.chain import Postprocess
from compress.progress import at_work
from compress.storage.description import Description
from compress.storage.weights import load_net, save_net
from compress.task import Task
from export.files import make_folder, sha256
from export.half.network import Half
from export.modules import Precision, has_signs, precision_of
from export.quantization.quantized import Quantized

Log = Callable[[str], None]

VIEWS = "views"
"""The run's folder for what steps that train share; it is gone when the last of them is done."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step's network: `baseline`, `01-int8`, ..."""

    name: str
    key: str
    path: Path
    params: int
    macs: int
    seconds: float
    """What the step took when it was done."""
    notes: Sequence[str]
    """What the pass said: what it did, and what it did not do and why."""
    precision: Precision = "float"
    """What its network computes in: integers each runtime wants written in its own way."""
    signs: bool = False
    """Whether its convolutions read signs, for which there is a runtime of their own."""

    @property
    def quantized(self) -> bool:
        return self.precision == "integers"

    @cached_property
    def net(self) -> nn.Module:
        """The network, loaded from its description and weights; nothing else of the run is needed."""
        return load_net(self.path)


def baseline(task: Task, key: str, cache: Cache, log: Log, name: str = "baseline") -> Stage:
    """The network as it came, saved as that of every step is, with what was found out about it."""

    def came(task: Task) -> nn.Module:
        for line in notes_of(task.net):
            task.note(line)
        _check_answers(task)
        return task.net

    return _stage(name, key, came, task, cache, log)


def _check_answers(task: Task) -> None:
    """That the network answers the same each time: every comparison stands on it.

    Raises:
        RecipeError: if not, with what draws random numbers or changes.
    """
    images = [torch.from_numpy(image) for image in task.probes(most=2)]
    why = why_otherwise(task.net, images[0])
    if why is not None:
        raise RecipeError("network", [why])
    line = of_the_batch(task.net, images)
    if line is not None:
        task.note(line)


def chain(
    passes: Sequence[tuple[str, Pass]],
    begun: Stage,
    task: Task,
    cache: Cache,
    log: Log,
    title: str = "",
    done: Iterable[Stage] = (),
) -> list[Stage]:
    """The network after each of the passes. Of a chain with a title the last one bears it: `int8_alone`.

    Args:
        done: stages of other chains; what this one begins with in common is taken from them.
    """
    stages, known = [begun], {stage.key: stage for stage in done}
    for number, (word, step) in enumerate(passes, start=1):
        name = (
            f"{number:02d}-{word}" if not title else title if number == len(passes) else f"{title}-{number:02d}-{word}"
        )
        before = stages[-1]
        key = key_after(before, word, step)
        if key in known:
            stages.append(replace(known[key], name=name))
        else:
            stages.append(after(before, name, (word, step), task, cache, log))
    return stages[1:]


def key_after(before: Stage, word: str, step: Pass) -> str:
    """The key of the network that a pass makes of that of a stage: the same for the same work."""
    return key_of(before.key, word, step)


def after(before: Stage, name: str, given: tuple[str, Pass], task: Task, cache: Cache, log: Log) -> Stage:
    """The network that one pass, given with its word, makes of that of a stage."""
    word, step = given
    return _stage(name, key_after(before, word, step), partial(_passed, step, before), task, cache, log)


def _passed(step: Pass, before: Stage, task: Task) -> nn.Module:
    net = step(before.net, task)
    assert precision_of(net) == step.ensures, "a pass keeps its word"
    return net


def _stage(name: str, key: str, make: Callable[[Task], nn.Module], task: Task, cache: Cache, log: Log) -> Stage:
    path = cache.folder / "steps" / name / "net.safetensors"

    def work() -> dict[str, object]:
        notes: list[str] = []

        def note(line: str) -> None:
            notes.append(line)
            log(f"{name}: {line}")

        begun = time.perf_counter()
        # What a pass keeps to go on after an interruption, until its network is saved.
        work = make_folder(path.parent / "work")
        with at_work(name):
            net = make(_own(replace(task, folder=work, note=note), cache))
        seconds = time.perf_counter() - begun
        save_net(
            net,
            Description(
                network=net.description,  # type: ignore[arg-type]
                classes=task.data.class_names,
                normalization=task.data.normalization,
                size=task.data.fit.size,
            ),
            path,
        )
        _check_again(net, path, task)
        shutil.rmtree(work)
        cost = cost_in(net, task)
        if cost.dead:
            note(_of_the_dead(cost))
        log(f"{name}: done in {seconds:.1f} s")
        return {
            "params": cost.params,
            "macs": cost.macs,
            "sha256": sha256(path),
            "seconds": round(seconds, 1),
            "notes": notes,
            **_kind(net),
        }

    record = cache.value(name, key, work)
    if not path.is_file() or sha256(path) != record["sha256"]:
        log(f"{name}: the kept network is gone or was changed; making it again")
        record = cache.value(name, key_of(key, "again", time.time_ns()), work)
    found = {what: record[what] for what in ("params", "macs", "seconds", "notes", "precision", "signs")}
    return Stage(name=name, key=key, path=path, **found)


def _own(task: Task, cache: Cache) -> Task:
    """The task as a pass has it, with what the steps of a run share."""
    # Without post-processing, so that none of it decides what a pass makes: changed, it is scored again and nothing is
    # trained again.
    return replace(task, views=cache.folder / VIEWS / cache.own, kept=cache.folder / "kept", postprocess=Postprocess())


def _kind(net: nn.Module) -> dict[str, object]:
    """What decides how a network is built, and for which runtimes."""
    return {"precision": precision_of(net), "signs": has_signs(net)}


def tidy(cache: Cache) -> None:
    """Remove what steps shared, once all of them are done."""
    shutil.rmtree(cache.folder / VIEWS, ignore_errors=True)


@torch.no_grad()
def _check_again(net: nn.Module, path: Path, task: Task) -> None:
    """That what was saved is the network: a description may miss what a layer holds beside its tensors."""
    if precision_of(net) == "integers":
        return
    image = torch.from_numpy(next(iter(task.probes(most=1))))
    if not torch.allclose(net.eval()(image), load_net(path)(image), rtol=1e-4, atol=1e-4):
        raise PassError(f"{path}: saved and loaded, the network answers otherwise: its layers hold more than tensors")


def cost_in(net: nn.Module, task: Task) -> Cost:
    """Live parameters and multiply-accumulates of a step's network for one image; integers count like floats."""
    if isinstance(net, Quantized):
        # What the answer does not need was left behind when its graph was drawn.
        total = sum(parameter.numel() for parameter in net.parameters())
        return Cost(params=total, macs=macs_of(net.graph, task.example), dead={})
    if isinstance(net, Half):
        total = sum(parameter.numel() for parameter in net.parameters())
        return Cost(params=total, macs=macs_of(net, task.example), dead={})
    return cost_of(net, task.example)


def _of_the_dead(cost: Cost) -> str:
    first = ", ".join(list(cost.dead)[:3])
    more = f" and {len(cost.dead) - 3} more" if len(cost.dead) > 3 else ""
    return (
        f"{sum(cost.dead.values()):,} parameters are not counted, because the answer does not depend on them: "
        f"{first}{more}"
    )
