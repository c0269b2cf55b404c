"""Every step's network on every runtime: exported and built."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import progress
from compress.cache import Cache, key_of, versions
from compress.errors import BackendError, NotHere
from compress.measure.complexity import bit_operations
from compress.pipeline.deployment import Deployment
from compress.pipeline.exports import Exports, has_artifact, stem_of
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import Stage
from compress.task import Task
from export.artifact import Artifact, Port
from export.files import make_folder
from export.half.network import Half
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.to_onnx import Style

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Build:
    """What became of one step on one deployment: an artifact, or the reason why there is none."""

    stage: Stage
    deployment: Deployment
    key: str
    artifact: Artifact | None = None
    absent: str | None = None
    """Why there is no artifact."""
    layers: Mapping[str, int] | None = None
    bit_operations: int | None = None

    @property
    def name(self) -> str:
        return name_of(self.stage, self.deployment)


def name_of(stage: Stage, deployment: Deployment) -> str:
    """What a step's build is called in records and messages."""
    return f"{stage.name}-{deployment.backend}-{deployment.device.name}"


class Builder:
    """Exports and builds, keeping what is done."""

    def __init__(self, task: Task, style: Style, cache: Cache, log: Log, peaks: PeakMemory) -> None:
        self.task, self.style, self.cache, self.log, self.peaks = task, style, cache, log, peaks
        self.exports = Exports(task, style, cache)
        self._counted: dict[tuple[str, Rules | None], int] = {}

    def each(self, stages: Iterable[Stage], deployed: Sequence[Deployment]) -> list[Build]:
        """Every stage on every deployment, but where there is nothing to build."""
        builds = [self.build(stage, at) for stage in stages for at in deployed]
        return [build for build in builds if build is not None]

    def build(self, stage: Stage, at: Deployment) -> Build | None:
        """The stage on this deployment; None where there is nothing to build.

        A network in integers or 16 bits has no artifact for a runtime that takes none, such as torch, which would only
        simulate them in float.
        """
        if not has_artifact(stage, at):
            return None
        # What is not here may be reached when the run is gone on with.
        key = key_of(
            stage.key,
            at.backend,
            at.device,
            at.target.threads,
            at.target.identity,
            at.not_here(),
            self.style,
            versions(),
        )
        name = f"build-{name_of(stage, at)}"
        with progress.at_work(f"building {name_of(stage, at)}"):
            record = self.cache.value(name, key, lambda: self._record(stage, at))
        artifact = None if record["artifact"] is None else self._read(stage, self.cache.folder / record["artifact"])
        if artifact is not None and not self._whole(stage, artifact):
            self.log(f"{stage.name} on {at.backend}: the kept artifact is gone or was changed; building it again")
            again = self._record(stage, at)
            record = self.cache.value(name, key_of(key, again), lambda: again)
            artifact = self._read(stage, self.cache.folder / record["artifact"])
        if artifact is not None:
            artifact = self.exports.told(artifact)
            with contextlib.suppress(BackendError):
                # What it was built from lies beside it, and must not say otherwise.
                self.exports.told(Artifact.read(artifact.path.with_name(f"{stem_of(stage, at)}.onnx")))
        return Build(
            stage=stage,
            deployment=at,
            key=key,
            artifact=artifact,
            absent=record["absent"],
            layers=record["layers"],
            bit_operations=record["bit_operations"],
        )

    def _record(self, stage: Stage, at: Deployment) -> dict[str, Any]:
        rules = at.rules if stage.quantized else None
        layers = _layers(stage, rules)
        try:
            path = stage.path if at.kind.runs_modules else self._built(stage, at, rules)
            self.log(f"{stage.name}: built for {at.backend} on {at.device.name}")
            with contextlib.suppress(NotHere):
                self.peaks.ahead(name_of(stage, at), at.peak_memory(self._read(stage, path)))
        except (BackendError, NotHere) as error:
            self.log(f"{stage.name}: not built for {at.backend} on {at.device.name}: {error}")
            return {"artifact": None, "absent": str(error), "layers": layers, "bit_operations": None}
        return {
            "artifact": str(path.relative_to(self.cache.folder)),
            "absent": None,
            "layers": layers,
            "bit_operations": self._bits(stage, rules),
        }

    def _built(self, stage: Stage, at: Deployment, rules: Rules | None) -> Path:
        onnx = self.exports.file(stage, stem_of(stage, at), rules)
        return at.build(onnx, make_folder(self.cache.folder / "artifacts" / stage.name)).path

    def _bits(self, stage: Stage, rules: Rules | None) -> int:
        """Counted once for all devices of a runtime, and once for all runtimes of a network in float."""
        which = stage.key, rules
        if which not in self._counted:
            net = stage.net if isinstance(stage.net, Half) else self.exports.placed(stage, rules)
            self._counted[which] = bit_operations(net, self.task.example)
        return self._counted[which]

    def _read(self, stage: Stage, path: Path) -> Artifact:
        if path != stage.path:
            return Artifact.read(path)
        return of_weights(path, (1, self.task.data.channels, *self.task.data.fit.size))

    def _whole(self, stage: Stage, artifact: Artifact) -> bool:
        if artifact.path == stage.path:
            # The step's own weights have no sidecar: they are data, and were compared when the step was read.
            return artifact.path.is_file()
        try:
            artifact.verify()
        except BackendError:
            return False
        return True


def of_weights(path: Path, shape: tuple[int, ...]) -> Artifact:
    """A step's own weights, as the runtimes take them that run modules; they have no sidecar.

    Args:
        shape: of the input, BCHW.
    """
    return Artifact(
        path=path,
        format="torch",
        input=Port(name="image", shape=shape, dtype="float"),
        output=Port(name="logits", shape=(1, *[-1] * (len(shape) - 1)), dtype="float"),
    )


def _layers(stage: Stage, rules: Rules | None) -> Mapping[str, int] | None:
    """How many layers compute in what; None of a network in 32 bits."""
    if stage.precision == "half":
        assert isinstance(stage.net, Half)
        return stage.net.layers()
    return stage.net.layers(rules) if isinstance(stage.net, Quantized) and rules else None
