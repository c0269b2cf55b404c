"""ONNX Runtime: the CPU, or CUDA where its GPU build is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from export.artifact import Artifact, Infer
from export.device import Device, Kind
from export.devices.cpu import CPU
from export.errors import BackendError
from export.profile import Profile
from export.quantization.rules import Rules
from export.sessions import onnxruntime as sessions
from export.sessions.onnxruntime import REFUSALS, reason

if TYPE_CHECKING:
    from export.quantization.emulation import Run

# uint8 activations: with them concatenation and max pooling stay in integers and ReLU disappears into the
# range, which is what makes a U-Net faster at all (int8 activations gained 1.0-1.4x, uint8 1.7-2.6x).
# Scales of a concatenation's inputs stay apart: QLinearConcat needs no common one, and with one common
# scale its kernel is not chosen (1.6x slower). ConvTranspose has no integer kernel; as convolution +
# DepthToSpace it needs none.
RULES = Rules(
    runtime="onnxruntime",
    activations="uint8",
    carriers=frozenset({"max_pool", "concat", "shuffle", "nearest"}),
    behind_carriers=True,
    outputs=True,
    adds="both",
    one_scale_concat=False,
    transposed_as_convolution=True,
    pairs_in_16_bits=True,
    sums_with_bias=True,
    fills_in=True,
)


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime:
    """Runs the ONNX file itself."""

    device: Device = CPU
    threads: int = 1
    rules: ClassVar[Rules | None] = RULES
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cpu", "cuda"})
    runs_modules: ClassVar[bool] = False
    builds_on_device: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")
    quick_to_tap: ClassVar[bool] = True
    """It opens a file in hundredths of a second."""

    @staticmethod
    def check_installed() -> None:
        """Always: it is what every export is checked with."""

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """The ONNX file itself, opened once, so that a file this runtime refuses is refused here."""
        sessions.session(onnx.path, self.threads)
        return replace(onnx, made={**onnx.made, "onnxruntime": sessions.version()}).sealed()

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """An inference session; the provider that really runs is checked, never fallen back from."""
        artifact.verify()
        yield sessions.opened(artifact.path, self.threads, self.device.kind, artifact.input.shape)

    @contextmanager
    def open_as(self, artifact: Artifact, *, pairs_in_16_bits: bool) -> Iterator[Infer]:
        """The artifact as an x86 CPU without VNNI answers (`pairs_in_16_bits`), or one with it, whatever this one has.

        Integer layers to the bit; float layers as this CPU rounds them (export/quantization/emulation.py).
        """
        # It computes with torch, which an artifact that is only opened must not load: it would count as its memory.
        from export.quantization.emulation import emulation

        artifact.verify()
        name = artifact.input.name
        run = emulation(self._optimized(artifact.path), _as_it_is, pairs_in_16_bits=pairs_in_16_bits)

        def infer(image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(run({name: image_BCHW})[artifact.output.name])

        yield infer

    def values(
        self, artifact: Artifact, image_BCHW: NDArray[np.float32], names: Collection[str]
    ) -> dict[str, NDArray[Any]]:
        """What it computes for tensors inside the file, fused as it fuses them: quantized ones by their integers.

        Args:
            names: outputs of nodes; of a DequantizeLinear, whose own output this runtime does not compute, what its
                integers stand for.
        """
        from export.deviation import with_outputs

        model = onnx.load(artifact.path)
        read = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        inside = {name: read[name].input[0] if name in read else name for name in names}
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "tapped.onnx"
            path.write_bytes(with_outputs(model, dict.fromkeys(inside.values())).SerializeToString())
            session = sessions.session(path, self.threads)
        outputs = list(dict.fromkeys(inside.values()))
        answers = dict(zip(outputs, session.run(outputs, {artifact.input.name: image_BCHW}), strict=True))
        return {
            name: _dequantized(answers[source], read[name], stored) if name in read else answers[source]
            for name, source in inside.items()
        }

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {"threads": self.threads, "graph_optimization": "all"}

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """How long each node takes, by this runtime's own profiler: medians over warm runs."""
        artifact.verify()
        return sessions.profiled(artifact.path, self.threads, self.device.kind, image_BCHW, runs)

    def fallback(self, artifact: Artifact) -> Mapping[str, Any]:
        """Which nodes CUDA left to the CPU."""
        artifact.verify()
        return sessions.fallback(artifact.path, self.threads, self.device.kind, artifact.input.shape)

    def executed_precisions(self, artifact: Artifact) -> Mapping[str, int]:
        """How many convolutions run in each precision, by the kernels that ran."""
        artifact.verify()
        return sessions.executed(artifact.path, self.threads, self.device.kind, artifact.input.shape)

    def _optimized(self, path: Path) -> onnx.ModelProto:
        """The graph that this runtime really runs."""
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch) / "optimized.onnx"
            sessions.session(path, self.threads, optimized=written)
            return onnx.load(written)


def _dequantized(codes: NDArray[Any], node: onnx.NodeProto, stored: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    scale, zero = (stored[name] for name in node.input[1:3])
    if scale.ndim:
        # A scale for each channel.
        scale, zero = (each.reshape(1, -1, *[1] * (codes.ndim - 2)) for each in (scale, zero))
    return (codes.astype(np.float32) - zero.astype(np.float32)) * scale


def answers(model: bytes, images: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Every output of a model that is not in a file yet, by name; nothing of it is rearranged.

    Raises:
        BackendError: if this runtime refuses the model.
    """
    return _opened_as_it_is(model)(images)


def _as_it_is(model: onnx.ModelProto) -> Run:
    return _opened_as_it_is(model.SerializeToString())


def _opened_as_it_is(model: bytes) -> Run:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except REFUSALS as error:
        raise BackendError(f"ONNX Runtime refuses the model: {reason(error)}") from None
    outputs = [output.name for output in session.get_outputs()]

    def run(images: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(outputs, session.run(outputs, dict(images)), strict=True))
        except REFUSALS as error:
            raise BackendError(f"ONNX Runtime refuses the model: {reason(error)}") from None

    return run
