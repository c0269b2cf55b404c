"""Every step's network on every runtime: exported, built, opened, scored, timed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from compress import progress
from compress.cache import Cache, key_of, versions
from compress.data.dataset.cases import Case
from compress.errors import BackendError, ExportError, NotHere
from compress.measure.complexity import bit_operations
from compress.measure.host import conditions
from compress.measure.latency import BLOCK, Timing, interleaved
from compress.measure.row import Row
from compress.measure.segmentation import Scoring
from compress.pipeline.faithful import FAITHFUL, fault_of_float, fault_of_integers
from compress.pipeline.peak_memory import Command, PeakMemory, command
from compress.pipeline.processors import processors
from compress.pipeline.provenance import hashes
from compress.pipeline.stages import Stage
from compress.pipeline.told import is_export, told
from compress.postprocess.applying.chain import Postprocess
from compress.storage.backends import backend_for
from compress.task import Task
from export.artifact import Artifact, Backend, Infer, Port
from export.backends.torch import infer_from_module
from export.device import Device
from export.files import make_folder, sha256
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import find_device
from export.to_onnx import Parity, Style, parity, to_onnx

Log = Callable[[str], None]
LogitsArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A runtime on a device."""

    backend: str
    device: Device
    threads: int

    def opened(self) -> Backend:
        return backend_for(self.backend, self.device, self.threads)

    @property
    def rules(self) -> Rules | None:
        """How this runtime wants a quantized network written for this device; None if it takes none."""
        rules: Rules | None = import_module(f"export.backends.{self.backend}").RULES
        return replace(rules, pairs_in_16_bits=False) if rules and self.device.exact_sums else rules

    @property
    def stem(self) -> str:
        """The name of a quantized network's file: one for each way of writing it."""
        return f"{self.backend}_8bit" if self.device.exact_sums else self.backend


@dataclass(frozen=True, kw_only=True)
class Build:
    """What became of one step on one place: an artifact, or the reason why there is none."""

    stage: Stage
    place: Place
    key: str
    artifact: Artifact | None = None
    absent: str | None = None
    """Why there is no artifact."""
    layers: Mapping[str, int] | None = None
    bit_operations: int | None = None

    @property
    def name(self) -> str:
        return name_of(self.stage, self.place)


def name_of(stage: Stage, place: Place) -> str:
    """What a step's build on a place is called in records and messages."""
    return f"{stage.name}-{place.backend}-{place.device.name}"


def _program(place: Place, artifact: Artifact) -> Command:
    """What tells the artifact's peak memory there."""
    return command(place.backend, artifact, place.device, place.threads)


def places(devices: Sequence[str], threads: int) -> list[Place]:
    """Every runtime of every device of the recipe."""
    found = [find_device(word) for word in devices]
    return [Place(backend=backend, device=device, threads=threads) for device in found for backend in device.backends]


class Builder:
    """Exports and builds, keeping what is done."""

    def __init__(self, task: Task, style: Style, cache: Cache, log: Log, peaks: PeakMemory) -> None:
        self.task, self.style, self.cache, self.log, self.peaks = task, style, cache, log, peaks
        self._counted: dict[tuple[str, Rules | None], int] = {}
        self._last: tuple[tuple[str, Rules | None], nn.Module] | None = None

    def build(self, stage: Stage, place: Place) -> Build | None:
        """The stage's network on this place; None where there is nothing to build.

        A quantized network has no torch artifact: torch would only simulate its integers in float.
        """
        quantized = "int8" in json.loads(stage.path.with_suffix(".json").read_text())["network"]
        if place.backend == "torch" and quantized:
            return None
        key = key_of(stage.key, place.backend, place.device, place.threads, self.style, versions())
        name = f"build-{name_of(stage, place)}"
        with progress.at_work(f"building {name_of(stage, place)}"):
            record = self.cache.value(name, key, lambda: self._record(stage, place, quantized))
        artifact = None if record["artifact"] is None else self._read(stage, self.cache.folder / record["artifact"])
        if artifact is not None and not self._whole(artifact):
            self.log(f"{stage.name} on {place.backend}: the kept artifact is gone or was changed; building it again")
            again = self._record(stage, place, quantized)
            record = self.cache.value(name, key_of(key, again), lambda: again)
            artifact = self._read(stage, self.cache.folder / record["artifact"])
        if artifact is not None:
            artifact = self._told(artifact)
            with contextlib.suppress(BackendError):
                # What it was built from lies beside it, and must not say otherwise.
                self._told(Artifact.read(artifact.path.with_name(f"{place.stem if quantized else 'model'}.onnx")))
        return Build(
            stage=stage,
            place=place,
            key=key,
            artifact=artifact,
            absent=record["absent"],
            layers=record["layers"],
            bit_operations=record["bit_operations"],
        )

    def _record(self, stage: Stage, place: Place, quantized: bool) -> dict[str, Any]:
        layers = stage.net.layers(place.rules) if isinstance(stage.net, Quantized) and place.rules else None
        try:
            if place.backend == "torch":
                path = stage.path
            else:
                onnx = self.exported(stage, *((place.stem, place.rules) if quantized else ("model", None)))
                path = place.opened().build(onnx, make_folder(self.cache.folder / "artifacts" / stage.name)).path
            self.log(f"{stage.name}: built for {place.backend} on {place.device.name}")
            with contextlib.suppress(NotHere):
                place.device.check_here()
                self.peaks.ahead(name_of(stage, place), _program(place, self._read(stage, path)))
        except (BackendError, NotHere) as error:
            self.log(f"{stage.name}: not built for {place.backend} on {place.device.name}: {error}")
            return {"artifact": None, "absent": str(error), "layers": layers, "bit_operations": None}
        return {
            "artifact": str(path.relative_to(self.cache.folder)),
            "absent": None,
            "layers": layers,
            "bit_operations": self._bits(stage, place.rules if quantized else None),
        }

    def _bits(self, stage: Stage, rules: Rules | None) -> int:
        """Counted once for all devices of a runtime, and once for all runtimes of a network in float."""
        which = stage.key, rules
        if which not in self._counted:
            self._counted[which] = bit_operations(self._placed(stage, rules), self.task.example)
        return self._counted[which]

    def _placed(self, stage: Stage, rules: Rules | None) -> nn.Module:
        """See `placed`; the last one is kept, since one device's runtime comes after the other's."""
        which = stage.key, rules
        if self._last is None or self._last[0] != which:
            self._last = which, placed(stage.net, rules)
        return self._last[1]

    def exported(self, stage: Stage, stem: str, rules: Rules | None) -> Artifact:
        """The stage as an ONNX file: one for all runtimes, or, quantized, one as each runtime fuses it.

        Args:
            stem: the file's name: "model", or the runtime whose rules these are.
        """
        path = self.cache.folder / "artifacts" / stage.name / f"{stem}.onnx"
        key = key_of(stage.key, stem, self.style, versions())

        def make() -> dict[str, str]:
            make_folder(path.parent)
            net = self._placed(stage, rules)
            artifact = to_onnx(net, self.task.example, path, self.style, self._metadata(stage)).sealed()
            if not isinstance(stage.net, Quantized):
                self._check_faithful(stage, artifact)
            return {"sha256": sha256(path)}

        record = self.cache.value(f"onnx-{stage.name}-{stem}", key, make)
        if not is_export(path, record["sha256"]):
            make()
        return self._told(Artifact.read(path))

    def _told(self, artifact: Artifact) -> Artifact:
        return told(artifact, self.task.postprocess, self.task.logits)

    def _check_faithful(self, stage: Stage, artifact: Artifact) -> None:
        from export.backends.onnxruntime import OnnxRuntime

        with OnnxRuntime(threads=1).open(artifact) as infer:
            found = parity(infer_from_module(self._placed(stage, None)), infer, self.task.probes())
        if not found.relative_error <= FAITHFUL:
            raise ExportError(f"{artifact.path.name}: ONNX Runtime's logits {found}: the export changed the network")

    def _metadata(self, stage: Stage) -> dict[str, str]:
        data = self.task.data
        return {
            "segpress.step": stage.name,
            "segpress.classes": json.dumps(data.class_names),
            "segpress.normalization": json.dumps(
                {"scale": data.reader.scale, "mean": data.normalization.mean, "std": data.normalization.std}
            ),
            "segpress.size": json.dumps(data.fit.size),
            "segpress.fit": data.fit.how,
            "segpress.padding": json.dumps(data.fit.padding),
            "segpress.resize": data.reader.resize,
            "segpress.channels": data.reader.channel_order(data.channels),
            "segpress.activation": "sigmoid" if self.task.logits == 1 else "softmax",
            # What the recipe's post-processing makes of it is told afterwards: it can change without the network.
            **Postprocess().metadata(self.task.logits),
            "segpress.restore": data.fit.restored_from,
            "segpress.axes": data.reader.axes,
            "segpress.spacing": json.dumps(data.fit.spacing),
            "segpress.weights_sha256": sha256(stage.path),
            "segpress.versions": json.dumps(versions()),
        }

    def _read(self, stage: Stage, path: Path) -> Artifact:
        if path != stage.path:
            return Artifact.read(path)
        size = (1, self.task.data.channels, *self.task.data.fit.size)
        return Artifact(
            path=path,
            format="torch",
            input=Port(name="image", shape=size, dtype="float"),
            output=Port(name="logits", shape=(1, *[-1] * (len(size) - 1)), dtype="float"),
        )

    def _whole(self, artifact: Artifact) -> bool:
        try:
            artifact.verify()
        except BackendError:
            return False
        return artifact.path.is_file()


def placed(net: nn.Module, rules: Rules | None) -> nn.Module:
    """The module to export for a runtime: itself, or quantized as its rules say."""
    if isinstance(net, Quantized):
        assert rules is not None
        return net.placed(rules)
    return net


def measured(
    builds: Sequence[Build], task: Task, scoring: Scoring, timing: Timing, peaks: PeakMemory, cache: Cache, log: Log
) -> list[Row]:
    """A row for each build: scored one after the other, then timed in turns, all in one run."""
    every = task.data.cases["test"]
    others = scoring.drawn(every, task.seed)
    answers = Answers(task)
    # Beside other processes a network in torch takes several times as long.
    peaks.settle()
    chosen = [(build, every if _judged(build, builds) else others) for build in builds]
    scored = {build.name: _score(build, answers, cases, peaks, cache, log) for build, cases in chosen}
    # Nothing runs beside what is timed.
    peaks.close()
    runnable = [build for build in builds if scored[build.name]["reason"] is None]
    times = cache.value(
        "latency",
        key_of([build.key for build in runnable], timing, task.seed, *_scene(task), versions()),
        lambda: _timed(runnable, task, timing, log),
    )
    rows = []
    for build in builds:
        found = scored[build.name]
        # What computes another network is no artifact of this one.
        artifact = None if found.get("refused") else build.artifact
        status = "measured" if found["reason"] is None else "not measured" if artifact is None else "built"
        rows.append(
            Row(
                step=build.stage.name,
                backend=build.place.backend,
                device=build.place.device.name,
                status=status,  # type: ignore[arg-type]
                reason=found["reason"],
                artifact=None if artifact is None else str(artifact.path.relative_to(cache.folder)),
                sha256=None if artifact is None else hashes(artifact),
                params=build.stage.params,
                macs=build.stage.macs,
                bit_operations=build.bit_operations,
                size_mb=None if artifact is None else round(artifact.size_mb, 6),
                scores=found["scores"],
                parity=found["parity"],
                peak_memory_mb=found["peak_memory_mb"],
                latency_ms=times.get(build.name),
                layers=build.layers,
                processors=found["processors"],
                flags=found["flags"],
            )
        )
    return rows


def _judged(build: Build, builds: Sequence[Build]) -> bool:
    """Whether a gate on a drop reads its scores: it is of the last step, or the baseline that drops are taken from."""
    if build.stage.name != "baseline":
        return build.stage.name == builds[-1].stage.name
    # Drops are from the baseline in torch, wherever there is one.
    return build.place.backend == "torch" or not any(each.place.backend == "torch" for each in builds)


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

    def fault(self, build: Build, backend: Backend, found: Parity, log: Log) -> str | None:
        """Why this build is not its network in torch; None if it is."""
        assert build.artifact is not None
        if build.artifact.format == "torch":
            return None
        net, image = self._answered(build)[0], next(iter(self.task.probes(most=1)))
        word = build.place.backend
        if isinstance(build.stage.net, Quantized):
            assert isinstance(net, fx.GraphModule)
            return fault_of_integers(word, backend, build.artifact, net, image, found, log)
        return fault_of_float(word, backend, build.artifact, image, found)

    def _answered(self, build: Build) -> tuple[nn.Module, list[LogitsArray]]:
        """The build's network in torch, and its logits."""
        net = build.stage.net
        which = build.stage.key, build.place.rules if isinstance(net, Quantized) else None
        if self._last is None or self._last[0] != which:
            module = placed(net, build.place.rules)
            infer = infer_from_module(module)
            self._last = which, module, [infer(image) for image in self.task.probes()]
        return self._last[1:]


def _score(
    build: Build, answers: Answers, cases: Sequence[Case], peaks: PeakMemory, cache: Cache, log: Log
) -> dict[str, Any]:
    task = answers.task
    nothing: dict[str, Any] = dict.fromkeys(("scores", "parity", "peak_memory_mb", "processors")) | {"flags": {}}

    def work() -> dict[str, Any]:
        if build.artifact is None:
            return {**nothing, "reason": build.absent}
        backend = build.place.opened()
        try:
            with backend.open(build.artifact) as infer:
                title = f"{build.stage.name} on {build.place.backend}"
                found = answers.parity(build, infer)
                fault = answers.fault(build, backend, found, log)
                if fault is not None:
                    log(f"{title}: refused: {fault}")
                    return {**nothing, "reason": fault, "refused": True}
                peaks.ahead(build.name, _program(build.place, build.artifact))
                with progress.steps(f"scoring {title}", len(cases)) as step:
                    scores = task.measure(infer, step, cases)
                log(f"{title}: mean foreground Dice {scores.mean('dice'):.4f}")
        except NotHere as error:
            return {**nothing, "reason": str(error)}
        return {
            "scores": scores.as_dict(),
            "parity": {name: round(value, 9) for name, value in asdict(found).items()},
            "peak_memory_mb": peaks.mb(build.name),
            "processors": processors(backend, build.artifact, task, cases),
            "flags": backend.flags(),  # type: ignore[attr-defined]
            "reason": None,
        }

    key = key_of(build.key, *_scene(task), build.absent, [case.name for case in cases])
    return cache.value(f"scores-{build.name}", key, work)


def _scene(task: Task) -> tuple[str, Postprocess]:
    """What scores and end-to-end times depend on beside the artifact."""
    return task.data.fingerprint(), task.postprocess


def _timed(builds: Sequence[Build], task: Task, timing: Timing, log: Log) -> dict[str, Any]:
    """Network-only and end-to-end times of every artifact, taken in turns."""
    if not builds:
        return {}
    order = np.random.default_rng(task.seed).permutation(len(task.data.cases["test"]))
    cases = [task.data.cases["test"][place] for place in order[:32]]
    images = [task.data.image(case)[None] for case in cases]
    with _all_open(builds) as infers, progress.steps("timing", None) as step:
        # In one go, so that what reading and resizing cost is not drowned in the noise between two.
        alone = {name: _on_images(infer, images) for name, infer in infers.items()}
        whole = {_whole(name): _on_cases(infer, cases, task) for name, infer in infers.items()}
        times = interleaved({**alone, **whole}, timing, task.seed, step, blocks=dict.fromkeys(whole, BLOCK // 2))
    log(f"timed {len(builds)} artifacts in turns")
    host = conditions()
    found = {}
    for name in infers:
        end_to_end = times[_whole(name)].as_dict()
        found[name] = {
            **times[name].as_dict(),
            "end_to_end_p50": end_to_end["p50"],
            "end_to_end_p95": end_to_end["p95"],
            "conditions": host,
        }
    return found


def _whole(name: str) -> str:
    return f"{name}, end to end"


@contextlib.contextmanager
def _all_open(builds: Sequence[Build]) -> Iterator[dict[str, Infer]]:
    with contextlib.ExitStack() as stack:
        infers = {}
        for build in builds:
            assert build.artifact is not None
            infers[build.name] = stack.enter_context(build.place.opened().open(build.artifact))
        yield infers


def _on_images(infer: Infer, images: Sequence[np.ndarray]) -> Callable[[int], object]:
    return lambda number: infer(images[number % len(images)])


def _on_cases(infer: Infer, cases: Sequence[Any], task: Task) -> Callable[[int], object]:
    return lambda number: task.labels(infer, cases[number % len(cases)])
