"""Every step's network as ONNX files: one for all runtimes in float, one for each way of writing integers."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from compress.cache import Cache, key_of, versions
from compress.data.dataset.cases import Dataset
from compress.data.dataset.normalization import BGR
from compress.data.planned.volumes import Planned
from compress.errors import ExportError
from compress.pipeline.deployment import Deployment
from compress.pipeline.exporting import placed, written
from compress.pipeline.faithful import is_faithful
from compress.pipeline.stages import Stage
from compress.pipeline.told import is_export, told
from compress.postprocess.applying.chain import Postprocess
from compress.task import Task
from export.artifact import Artifact
from export.backends.torch import infer_from_module
from export.files import make_folder, sha256
from export.quantization.rules import Rules
from export.registry import is_for_signs
from export.to_onnx import Style, parity


class Exports:
    """Writes ONNX files, keeping what is done."""

    def __init__(self, task: Task, style: Style, cache: Cache) -> None:
        self.task, self.style, self.cache = task, style, cache
        self._last: tuple[tuple[str, Rules | None], nn.Module] | None = None

    def file(self, stage: Stage, stem: str, rules: Rules | None) -> Artifact:
        """The stage as an ONNX file: one for all runtimes, or, quantized, one as each runtime fuses it.

        Args:
            stem: see `stem_of`.
        """
        path = self._path(stage, stem)

        def make() -> dict[str, str]:
            make_folder(path.parent)
            artifact = self._written(stage, rules, path)
            if stage.precision == "float":
                self._check_faithful(stage, artifact)
            return {"sha256": sha256(path)}

        record = self.cache.value(*self._record(stage, stem), make)
        if not is_export(path, record["sha256"]):
            make()
        return self.told(Artifact.read(path))

    def placed(self, stage: Stage, rules: Rules | None) -> nn.Module:
        """See `placed`; the last one is kept, since one device's runtime comes after the other's."""
        which = stage.key, rules
        if self._last is None or self._last[0] != which:
            self._last = which, placed(stage.net, rules)
        return self._last[1]

    def told(self, artifact: Artifact) -> Artifact:
        """The artifact, which says what comes after the network."""
        return told(artifact, self.task.postprocess, self.task.logits)

    def _written(self, stage: Stage, rules: Rules | None, path: Path) -> Artifact:
        net = self.placed(stage, rules)
        return written(stage.net, rules, self.task.example, path, self.style, metadata(stage, self.task), net)

    def _path(self, stage: Stage, stem: str) -> Path:
        return self.cache.folder / "artifacts" / stage.name / f"{stem}.onnx"

    def _record(self, stage: Stage, stem: str) -> tuple[str, str]:
        """The name of what is kept, and its key."""
        return f"onnx-{stage.name}-{stem}", key_of(stage.key, stem, self.style, versions())

    def _check_faithful(self, stage: Stage, artifact: Artifact) -> None:
        from export.backends.onnxruntime import OnnxRuntime

        with OnnxRuntime(threads=1).open(artifact) as infer:
            apart = parity(infer_from_module(self.placed(stage, None)), infer, self.task.probes())
        if not is_faithful(apart, stage.net):
            raise ExportError(f"{artifact.path.name}: ONNX Runtime's logits {apart}: the export changed the network")


def has_artifact(stage: Stage, at: Deployment) -> bool:
    """Whether a stage has one on this deployment.

    Torch would only simulate integers and 16 bits in float; a runtime that is there for convolutions of signs has
    nothing to do where there are none.
    """
    if is_for_signs(at.backend) and not stage.signs:
        return False
    if stage.quantized:
        return at.rules is not None
    return not (at.kind.runs_modules and stage.precision == "half")


def stem_of(stage: Stage, at: Deployment) -> str:
    """The name of a stage's file: one for all runtimes, or, quantized, one for each way of writing it."""
    return at.stem if stage.quantized else "model"


def metadata(stage: Stage, task: Task) -> dict[str, str]:
    """What the file tells whoever runs it: docs/artifact_metadata.md."""
    data = task.data
    return {
        "segpress.step": stage.name,
        "segpress.classes": json.dumps(data.class_names),
        "segpress.normalization": json.dumps(
            {"mean": [0.0], "std": [1.0], **data.normalization.told, "scale": data.reader.scale}
        ),
        "segpress.size": json.dumps(data.fit.size),
        "segpress.fit": data.fit.how,
        "segpress.padding": json.dumps(data.fit.padding),
        "segpress.resize": data.reader.resize,
        "segpress.channels": BGR if data.normalization.order == BGR else data.reader.channel_order(data.channels),
        "segpress.activation": "sigmoid" if task.logits == 1 else "softmax",
        # What the recipe's post-processing makes of it is told afterwards: it can change without the network.
        **Postprocess().metadata(task.logits),
        "segpress.restore": "logits" if data.fit.how == "nnunet" else data.fit.restored_from,
        "segpress.axes": data.reader.axes,
        "segpress.spacing": json.dumps(data.fit.spacing),
        "segpress.weights_sha256": sha256(stage.path),
        "segpress.versions": json.dumps(versions()),
        **_planned(data),
    }


def _planned(data: Dataset) -> dict[str, str]:
    """What nnU-Net's plans say beside all that; nothing for other data."""
    if not isinstance(data.reader, Planned):
        return {}
    return {"segpress.nnunet": json.dumps(data.reader.plan.told(data.fit.overlap, data.fit.mirrored))}
