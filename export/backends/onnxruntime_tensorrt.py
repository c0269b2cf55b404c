"""ONNX Runtime with its TensorRT provider: TensorRT takes what it can of the ONNX file, CUDA and the CPU the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.backends.onnxruntime import OnnxRuntime
from export.backends.tensorrt import RULES, TensorRt
from export.device import Device, Kind
from export.devices.cuda import CUDA
from export.files import write_bytes
from export.profile import Profile
from export.quantization.rules import Rules
from export.sessions import onnxruntime_tensorrt as sessions

if TYPE_CHECKING:
    from pathlib import Path

    from export.engines.wanted import Wanted


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeTensorRt:
    """Runs the ONNX file itself; engines are built where it is first opened, and kept beside it."""

    device: Device = CUDA
    threads: int = 1
    rules: ClassVar[Rules | None] = RULES
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cuda"})
    runs_modules: ClassVar[bool] = False
    builds_on_device: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu", "tensorrt")

    @staticmethod
    def check_installed() -> None:
        """Always: the file and its options are written without TensorRT."""

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """The ONNX file, and beside it what the provider is told: the types that the file has, and its shapes.

        Raises:
            BackendError: if ONNX Runtime refuses the file.
        """
        checked = OnnxRuntime(threads=self.threads).build(onnx, folder)
        told = _options(TensorRt(device=self.device).wanted(onnx))
        beside = onnx.path.with_suffix(f".{sessions.OPTIONS}")
        write_bytes(beside, json.dumps(told, indent=2, sort_keys=True).encode() + b"\n")
        # What sums a CPU could cut off says nothing of a GPU, which adds in 32 bits.
        made = {key: value for key, value in checked.made.items() if key != "pair_sums"}
        return replace(checked, beside=(*checked.beside, beside.name), made={**made, "provider_options": told}).sealed()

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """A session whose first provider is TensorRT's: that it is not left out in silence is checked."""
        artifact.verify()
        yield sessions.opened(artifact.path, self.threads, self.device.kind, artifact.input.shape)

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {"providers": "TensorRT, CUDA, CPU", "data_transfers": "included"}

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """How long each node takes, an engine being one: medians over warm runs."""
        artifact.verify()
        return sessions.profiled(artifact.path, self.threads, self.device.kind, image_BCHW, runs)

    def fallback(self, artifact: Artifact) -> Mapping[str, Any]:
        """Which nodes TensorRT left to CUDA or the CPU."""
        artifact.verify()
        return sessions.fallback(artifact.path, self.threads, self.device.kind, artifact.input.shape)


def _options(wanted: Wanted) -> dict[str, str]:
    """As the provider reads them (ONNX Runtime, "TensorRT Execution Provider", provider options).

    8 and 16 bits are allowed where the file has them, and nowhere else; up to TensorRT 10 the builder refuses them
    otherwise, from 11 on it reads the types alone. A range of shapes is given where axes are open.
    """
    ranges = {
        f"trt_profile_{what}_shapes": f"{wanted.input}:{'x'.join(map(str, shape))}"
        for what, shape in wanted.ranges.items()
    }
    return {"trt_int8_enable": str(wanted.int8), "trt_fp16_enable": str(wanted.fp16), **ranges}
