"""Every step's network on every runtime: exported and built."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from compress import progress
from compress.cache import Cache, key_of, versions
from compress.errors import BackendError, ExportError, NotHere
from compress.measure.complexity import bit_operations
from compress.pipeline.deployment import Deployment
from compress.pipeline.faithful import is_faithful
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import Stage
from compress.pipeline.told import is_export, told
from compress.postprocess.applying.chain import Postprocess
from compress.task import Task
from export.artifact import Artifact, Port
from export.backends.torch import infer_from_module
from export.files import make_folder, sha256
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import is_for_signs
from export.to_onnx import Style, parity, to_onnx

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
        self._counted: dict[tuple[str, Rules | None], int] = {}
        self._last: tuple[tuple[str, Rules | None], nn.Module] | None = None

    def build(self, stage: Stage, at: Deployment) -> Build | None:
        """The stage's network on this deployment; None where there is nothing to build.

        A quantized network has no artifact for a runtime that takes none, such as torch, which would only simulate
        its integers in float; one without convolutions of signs has none for a runtime that is there for these.
        """
        if (stage.quantized and at.rules is None) or (is_for_signs(at.backend) and not stage.signs):
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
            artifact = self._told(artifact)
            with contextlib.suppress(BackendError):
                # What it was built from lies beside it, and must not say otherwise.
                self._told(Artifact.read(artifact.path.with_name(f"{at.stem if stage.quantized else 'model'}.onnx")))
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
        layers = stage.net.layers(rules) if isinstance(stage.net, Quantized) and rules else None
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
        onnx = self.exported(stage, at.stem if rules else "model", rules)
        return at.build(onnx, make_folder(self.cache.folder / "artifacts" / stage.name)).path

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
            style = replace(self.style, integers_in_bits=rules is None or rules.reads_bits)
            artifact = to_onnx(net, self.task.example, path, style, metadata(stage, self.task)).sealed()
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
            apart = parity(infer_from_module(self._placed(stage, None)), infer, self.task.probes())
        if not is_faithful(apart, stage.net):
            raise ExportError(f"{artifact.path.name}: ONNX Runtime's logits {apart}: the export changed the network")

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

    def _whole(self, stage: Stage, artifact: Artifact) -> bool:
        if artifact.path == stage.path:
            # The step's own weights have no sidecar: they are data, and were compared when the step was read.
            return artifact.path.is_file()
        try:
            artifact.verify()
        except BackendError:
            return False
        return True


def placed(net: nn.Module, rules: Rules | None) -> nn.Module:
    """The module to export for a runtime: itself, or quantized as its rules say."""
    if isinstance(net, Quantized):
        assert rules is not None
        return net.placed(rules)
    return net


def metadata(stage: Stage, task: Task) -> dict[str, str]:
    """What the file tells whoever runs it: docs/artifact_metadata.md."""
    data = task.data
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
        "segpress.activation": "sigmoid" if task.logits == 1 else "softmax",
        # What the recipe's post-processing makes of it is told afterwards: it can change without the network.
        **Postprocess().metadata(task.logits),
        "segpress.restore": data.fit.restored_from,
        "segpress.axes": data.reader.axes,
        "segpress.spacing": json.dumps(data.fit.spacing),
        "segpress.weights_sha256": sha256(stage.path),
        "segpress.versions": json.dumps(versions()),
    }
