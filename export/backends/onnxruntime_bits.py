"""ONNX Runtime on the CPU with our kernel for convolutions of signs: sums are counts of bits, and no bit is unpacked.

Its artifact is the portable file rewritten: convolutions of signs are one operator each (export/kernels), which no
other runtime has. Where there is no compiler nothing is built, with that reason, and the portable file runs as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.backends import onnxruntime
from export.device import Device, Kind
from export.devices.cpu import CPU
from export.errors import BackendError
from export.files import write_bytes
from export.kernels.library import library
from export.kernels.signed_nodes import with_signed_convs
from export.profile import Profile
from export.quantization.rules import Rules
from export.sessions import onnxruntime as sessions


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeBits:
    """Runs networks whose convolutions read signs, and no others."""

    device: Device = CPU
    threads: int = 1
    rules: ClassVar[Rules | None] = onnxruntime.RULES
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cpu"})
    runs_modules: ClassVar[bool] = False
    builds_on_device: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    for_signs: ClassVar[bool] = True
    """Networks without convolutions of signs have nothing for it to do, and get no row."""

    @staticmethod
    def check_installed() -> None:
        """Always: ONNX Runtime is, and a compiler that is missing is told when something is built."""

    def build(self, onnx_file: Artifact, folder: Path) -> Artifact:
        """The file with our operator in it, opened once.

        Raises:
            BackendError: if it has no convolution of signs.
            NotHere: if there is no compiler.
        """
        kernels = library()
        model = onnx.load(onnx_file.path)
        count = with_signed_convs(model, self.threads)
        if not count:
            raise BackendError(f"{onnx_file.path.name}: no convolution in it reads signs")
        path = folder / f"{onnx_file.path.stem}.kernels.onnx"
        write_bytes(path, model.SerializeToString(deterministic=True))
        sessions.session(path, self.threads, kernels=kernels.path)
        made = {
            **{key: value for key, value in onnx_file.made.items() if key != "sha256"},
            "onnxruntime": sessions.version(),
            "kernels": {"signed_conv": count, "sha256": kernels.sha256, "compiler": kernels.compiler},
        }
        return replace(onnx_file, path=path, made=made).sealed()

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """An inference session with our kernel."""
        artifact.verify()
        yield sessions.opened(artifact.path, self.threads, "cpu", artifact.input.shape, library().path)

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {"threads": self.threads, "graph_optimization": "all", "kernels": library().sha256[:12]}

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """How long each node takes, by the runtime's own profiler: medians over warm runs."""
        artifact.verify()
        return sessions.profiled(artifact.path, self.threads, "cpu", image_BCHW, runs, library().path)

    def executed_precisions(self, artifact: Artifact) -> Mapping[str, int]:
        """How many convolutions run in each precision, by the kernels that ran."""
        artifact.verify()
        return sessions.executed(artifact.path, self.threads, "cpu", artifact.input.shape, library().path)
