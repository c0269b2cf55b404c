"""Every build, opened where it runs: compared with its network in torch, scored, timed in turns with the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from compress import progress
from compress.cache import Cache, key_of, versions
from compress.data.dataset.cases import Case
from compress.data.dataset.remembered import remembered
from compress.errors import NotHere, SegpressError
from compress.measure.latency import BLOCK, Samples, Timing, in_turns
from compress.measure.row import Row, Status
from compress.measure.segmentation import Scoring
from compress.pipeline.bounds import floor
from compress.pipeline.build import Build
from compress.pipeline.executed import executed, fallback, uncovered
from compress.pipeline.exporting import placed
from compress.pipeline.faithful import fault_of_float, fault_of_half, fault_of_integers
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.processors import processors
from compress.pipeline.provenance import hashes
from compress.pipeline.watch import power_modes, throttled, throttling, watched
from compress.postprocess.applying.chain import Postprocess
from compress.task import Task, needs_logits
from export.artifact import Infer
from export.backend import Backend
from export.backends.torch import infer_from_module
from export.clock import timed
from export.half.network import Half
from export.host import boot_id
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.to_onnx import Parity, parity

Log = Callable[[str], None]
LogitsArray = NDArray[np.float32]


def measured(
    builds: Sequence[Build], task: Task, scoring: Scoring, timing: Timing, peaks: PeakMemory, cache: Cache, log: Log
) -> list[Row]:
    """A row for each build: scored one after the other, then timed in turns, all in one run."""
    every = task.data.cases["test"]
    others = scoring.drawn(every, task.seed)
    # Beside other processes a network in torch takes several times as long.
    peaks.settle()
    chosen = {build.name: every if _judged(build, builds) else others for build in builds}
    here, elsewhere = by_machine(builds)
    measurement = Measurement(task=task, timing=timing, chosen=chosen, cache=cache, log=log)
    _tell_what_travels(builds, task, log)
    rows = measurement.rows(here, peaks, "latency")
    for found in _at_once(measurement, elsewhere):
        rows |= found
    return [rows[build.name] for build in builds]


def _tell_what_travels(builds: Sequence[Build], task: Task, log: Log) -> None:
    """Say why devices that are elsewhere answer with logits, where labels would be a hundredth of the bytes."""
    names = {build.deployment.device.name: None for build in builds if not build.deployment.target.is_this_host}
    why = next(filter(None, (needs_logits(task, case) for case in task.data.cases["test"])), None) if names else None
    if why:
        log(f"{', '.join(names)}: logits come back and not labels: {why}")


def by_machine(builds: Sequence[Build]) -> tuple[list[Build], list[list[Build]]]:
    """The builds that run on this machine, by whatever name it is reached, and those of each other one."""
    here = boot_id()
    machines: dict[str, list[Build]] = {}
    for build in builds:
        target = build.deployment.target
        machines.setdefault("" if target.is_this_host or target.machine == here else target.machine, []).append(build)
    return machines.pop("", []), list(machines.values())


def _at_once(measurement: Measurement, machines: Sequence[Sequence[Build]]) -> list[dict[str, Row]]:
    """The rows of each other machine, in a thread of its own, which waits for that machine most of the time.

    What goes wrong at one of them is told when the others have finished, so that their measurements are kept.
    """

    def rows(builds: Sequence[Build]) -> dict[str, Row]:
        try:
            with PeakMemory() as peaks:
                return measurement.rows(builds, peaks, f"latency-{builds[0].deployment.device.name}")
        except SegpressError as error:
            if len(machines) > 1:
                measurement.log(f"{error} (what is measured elsewhere is finished first)")
            raise

    if not machines:
        return []
    with ThreadPoolExecutor(max_workers=len(machines)) as pool:
        begun = [pool.submit(rows, each) for each in machines]
        try:
            wait(begun)
        except BaseException:
            # Threads that wait for an answer wait no longer, and those that compute here ask for no other.
            for build in (each for builds in machines for each in builds):
                build.deployment.target.stop()
            raise
    return [each.result() for each in begun]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What every artifact is measured in."""

    task: Task
    timing: Timing
    chosen: Mapping[str, Sequence[Case]]
    """The test cases that each build is scored on, by its name."""
    cache: Cache
    log: Log

    def rows(self, builds: Sequence[Build], peaks: PeakMemory, name: str) -> dict[str, Row]:
        """A row for each build of one machine, by its name: scored one after the other, then timed in turns.

        Args:
            name: of the record of their times.
        """
        cache, task = self.cache, self.task
        # Of the end-to-end times reading is a part, so that nothing is remembered there.
        answers = Answers(replace(task, data=remembered(task.data)))
        scored = {each.name: _score(each, answers, self.chosen[each.name], peaks, cache, self.log) for each in builds}
        # Nothing runs beside what is timed.
        peaks.close()
        runnable = [build for build in builds if scored[build.name]["reason"] is None]
        times = cache.value(
            name,
            key_of([build.key for build in runnable], self.timing, task.seed, *_scene(task), versions()),
            lambda: _timed(runnable, task, self.timing, self.log),
        )
        nothing: dict[str, Any] = {"latency_ms": None, "watch": None}
        return {each.name: _row(each, scored[each.name], times.get(each.name, nothing), cache) for each in builds}


def _row(build: Build, score: dict[str, Any], times: dict[str, Any], cache: Cache) -> Row:
    # What computes another network is no artifact of this one.
    artifact = None if score.get("refused") else build.artifact
    made = {} if artifact is None else artifact.made
    status: Status = "measured" if score["reason"] is None else "not measured" if artifact is None else "built"
    return Row(
        step=build.stage.name,
        backend=build.deployment.backend,
        device=build.deployment.device.name,
        status=status,
        reason=score["reason"],
        artifact=None if artifact is None else str(artifact.path.relative_to(cache.folder)),
        sha256=None if artifact is None else hashes(artifact),
        params=build.stage.params,
        macs=build.stage.macs,
        bit_operations=build.bit_operations,
        size_mb=None if artifact is None else round(artifact.size_mb, 6),
        scores=score["scores"],
        parity=score["parity"],
        peak_memory_mb=score["peak_memory_mb"],
        latency_ms=times["latency_ms"],
        floor=floor(build),
        watch=times["watch"],
        layers=build.layers,
        executed=score.get("executed") or made.get("executed"),
        fallback=score.get("fallback") or made.get("fallback"),
        uncovered=score.get("uncovered"),
        processors=score["processors"],
        flags=score["flags"],
    )


def _judged(build: Build, builds: Sequence[Build]) -> bool:
    """Whether a gate on a drop reads its scores: it is of the last step, or the baseline that drops are taken from."""
    if build.stage.name != "baseline":
        return build.stage.name == builds[-1].stage.name
    # Drops are from the baseline in torch, wherever there is one.
    return build.deployment.kind.runs_modules or not any(each.deployment.kind.runs_modules for each in builds)


class Answers:
    """What torch says of the inputs that artifacts are compared with it on, for the last network asked for.

    A network in float is compared on one runtime after the other; its answers are always the same.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._last: tuple[tuple[str, Rules | None], nn.Module, list[LogitsArray]] | None = None

    def parity(self, build: Build, infer: Infer) -> Parity:
        """How far this build is from its network in torch."""
        known = iter(self._answered(build)[1])
        return parity(lambda image: next(known), infer, self.task.probes())

    def fault(self, build: Build, backend: Backend, apart: Parity, log: Log) -> str | None:
        """Why this build is not its network in torch; None if it is."""
        assert build.artifact is not None
        if backend.runs_modules:
            return None
        net, image = self._answered(build)[0], next(iter(self.task.probes(most=1)))
        word = build.deployment.backend
        if isinstance(build.stage.net, Half):
            return fault_of_half(word, backend, build.artifact, image, apart, log)
        if isinstance(build.stage.net, Quantized):
            assert isinstance(net, fx.GraphModule)
            return fault_of_integers(word, backend, build.artifact, net, image, apart, log)
        return fault_of_float(word, backend, build.artifact, net, image, apart)

    def _answered(self, build: Build) -> tuple[nn.Module, list[LogitsArray]]:
        """The build's network in torch, and its logits."""
        net = build.stage.net
        which = build.stage.key, build.deployment.rules if isinstance(net, Quantized) else None
        if self._last is None or self._last[0] != which:
            # Types of 16 bits are for a file; in torch a network in them simulates itself.
            module = net if isinstance(net, Half) else placed(net, build.deployment.rules)
            infer = infer_from_module(_as_computed(net, build.deployment.rules) or module)
            self._last = which, module, [infer(image) for image in self.task.probes()]
        return self._last[1:]


def _as_computed(net: nn.Module, rules: Rules | None) -> nn.Module | None:
    """A quantized network as its runtime computes it; None of any other."""
    return net.simulated(rules) if isinstance(net, Quantized) and rules is not None else None


def _score(
    build: Build, answers: Answers, cases: Sequence[Case], peaks: PeakMemory, cache: Cache, log: Log
) -> dict[str, Any]:
    task = answers.task
    nothing: dict[str, Any] = dict.fromkeys(("scores", "parity", "peak_memory_mb", "processors")) | {"flags": {}}

    def work() -> dict[str, Any]:
        if build.artifact is None:
            return {**nothing, "reason": build.absent}
        backend = build.deployment.open()
        with backend.open(build.artifact) as infer:
            title = f"{build.stage.name} on {build.deployment.title}"
            apart = answers.parity(build, infer)
            fault = answers.fault(build, backend, apart, log)
            if fault is not None:
                log(f"{title}: refused: {fault}")
                return {**nothing, "reason": fault, "refused": True}
            peaks.ahead(build.name, build.deployment.peak_memory(build.artifact))
            with progress.steps(f"scoring {title}", len(cases)) as step:
                scores = task.measure(infer, step, cases)
            log(f"{title}: mean foreground Dice {scores.mean('dice'):.4f}")
            # While it is open, what it was compiled to need not be compiled again.
            ran_in = executed(backend, build.artifact)
        return {
            "scores": scores.as_dict(),
            "parity": {name: round(value, 9) for name, value in asdict(apart).items()},
            "peak_memory_mb": peaks.mb(build.name),
            "executed": ran_in,
            "fallback": fallback(backend, build.artifact),
            "uncovered": uncovered(build, backend, next(iter(task.probes(most=1)))),
            "processors": processors(backend, build.deployment.target, build.artifact, task, cases),
            "flags": backend.flags(),
            "reason": None,
        }

    key = key_of(build.key, *_scene(task), build.absent, [case.name for case in cases])
    try:
        return cast(dict[str, Any], cache.value(f"scores-{build.name}", key, work))
    except NotHere as error:
        # Not kept: it may be here when the run is gone on with.
        return {**nothing, "reason": str(error)}


def _scene(task: Task) -> tuple[str, Postprocess]:
    """What scores and end-to-end times depend on beside the artifact."""
    return task.data.fingerprint(), task.postprocess


def _timed(builds: Sequence[Build], task: Task, timing: Timing, log: Log) -> dict[str, Any]:
    """Network-only and end-to-end times of every artifact, taken in turns; then what is seen while each runs alone."""
    if not builds:
        return {}
    order = np.random.default_rng(task.seed).permutation(len(task.data.cases["test"]))
    cases = [task.data.cases["test"][which] for which in order[:32]]
    images = [task.data.image(case)[None] for case in cases]
    with power_modes(builds), all_open(builds) as infers, progress.steps("timing", None) as step:
        # In one go, so that what reading and resizing cost is not drowned in the noise between two.
        alone = {each.name: partial(each.deployment.target.time, infers[each.name], images) for each in builds}
        # Elsewhere, reading and resizing here and the way there and back would be timed too.
        here = [each.name for each in builds if each.deployment.target.is_this_host]
        whole = {_whole(name): partial(timed, _on_cases(infers[name], cases, task)) for name in here}
        before = throttling(builds)
        blocks, warm_with = dict.fromkeys(whole, BLOCK // 2), {_whole(name): name for name in here}
        times = in_turns({**alone, **whole}, timing, task.seed, step, blocks, warm_with)
        slowed_by = throttled(builds, before)
        log(f"timed {len(builds)} artifacts in turns")
        latency = {each.name: {**_latency(each, times), "throttled": slowed_by[each.name]} for each in builds}
        # Behind the timing, which sampling would disturb.
        watches = watched(builds, infers, images, log)
    return {name: {"latency_ms": each, "watch": watches.get(name)} for name, each in latency.items()}


def _latency(build: Build, times: dict[str, Samples]) -> dict[str, Any]:
    """What the report says of a build's times; a machine that is not this one is described with them."""
    target = build.deployment.target
    whole = times[_whole(build.name)].as_dict() if target.is_this_host else dict.fromkeys(("p50", "p95"))
    return {
        **times[build.name].as_dict(),
        "end_to_end_p50": whole["p50"],
        "end_to_end_p95": whole["p95"],
        "conditions": target.conditions(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **({} if target.is_this_host else {"host": target.facts()}),
    }


def _whole(name: str) -> str:
    return f"{name}, end to end"


@contextlib.contextmanager
def all_open(builds: Sequence[Build]) -> Iterator[dict[str, Infer]]:
    """Every build, open where it runs, by its name."""
    with contextlib.ExitStack() as stack:
        infers = {}
        for build in builds:
            assert build.artifact is not None
            infers[build.name] = stack.enter_context(build.deployment.open().open(build.artifact))
        yield infers


def _on_cases(infer: Infer, cases: Sequence[Case], task: Task) -> Callable[[int], object]:
    return lambda number: task.labels(infer, cases[number % len(cases)])
