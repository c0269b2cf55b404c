"""ONNX's own reference evaluator: slow, exact by definition; for tests and disputes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from export.artifact import Artifact, Infer
from export.backends.onnxruntime import RULES
from export.device import Device, Kind
from export.devices.cpu import CPU
from export.quantization.rules import Rules


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Evaluates the ONNX file node by node in numpy."""

    device: Device = CPU
    threads: int = 1
    rules: ClassVar[Rules | None] = RULES
    """ONNX Runtime's, so that both can be compared on one file."""
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cpu"})
    runs_modules: ClassVar[bool] = False
    builds_on_device: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "numpy")

    @staticmethod
    def check_installed() -> None:
        """Always: it comes with ONNX."""

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
