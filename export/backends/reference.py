"""ONNX's own reference evaluator: slow, exact by definition; for tests and disputes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from export.artifact import Artifact, Infer
from export.backends.onnxruntime import RULES as ONNX_RUNTIME_RULES
from export.device import Device
from export.devices.cpu import CPU

RULES = ONNX_RUNTIME_RULES


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Evaluates the ONNX file node by node in numpy."""

    device: Device = CPU
    threads: int = 1

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """The ONNX file itself: there is nothing to build."""
        return onnx

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """The evaluator."""
        artifact.verify()
        evaluator = ReferenceEvaluator(onnx.load(artifact.path))
        name = artifact.input.name

        def infer(image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            (logits_BKHW,) = evaluator.run(None, {name: image_BCHW})
            return np.asarray(logits_BKHW)

        yield infer

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {}
