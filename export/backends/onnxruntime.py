"""ONNX Runtime: the CPU, or CUDA where its GPU build is installed."""

from __future__ import annotations

import json
import re
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
from onnxruntime.capi import onnxruntime_pybind11_state as pybind

from export.artifact import Artifact, Infer
from export.device import Device, Kind
from export.devices.cpu import CPU
from export.errors import BackendError, NotHere
from export.layers import NodeTime, Profile, profile_of
from export.quantization.rules import Rules

if TYPE_CHECKING:
    from export.quantization.emulation import Run

# uint8 activations: with them concatenation and max pooling stay in integers and ReLU disappears into the
# range, which is what makes a U-Net faster at all (int8 activations gained 1.0-1.4x, uint8 1.7-2.6x).
# Scales of a concatenation's inputs stay apart: QLinearConcat needs no common one, and with one common
# scale its kernel is not chosen (1.6x slower). ConvTranspose has no integer kernel; as convolution +
# DepthToSpace it needs none.
RULES = Rules(
    activations="uint8",
    carriers=frozenset({"max_pool", "concat", "shuffle", "nearest"}),
    behind_carriers=True,
    outputs=True,
    adds="both",
    one_scale_concat=False,
    transposed_as_convolution=True,
    pairs_in_16_bits=True,
)
_WARM = 5
"""Runs before those that are counted."""
# Its errors have no class in common but Exception.
_REFUSALS = (
    pybind.EPFail,
    pybind.Fail,
    pybind.InvalidArgument,
    pybind.InvalidGraph,
    pybind.InvalidProtobuf,
    pybind.NotImplemented,
    pybind.RuntimeException,
)


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime:
    """Runs the ONNX file itself."""

    device: Device = CPU
    threads: int = 1
    rules: ClassVar[Rules | None] = RULES
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cpu", "cuda"})
    runs_modules: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")
    quick_to_tap: ClassVar[bool] = True
    """It opens a file in hundredths of a second."""

    @staticmethod
    def check_installed() -> None:
        """Always: it is what every export is checked with."""

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """The ONNX file itself, opened once, so that a file this runtime refuses is refused here."""
        self._session(onnx.path, "CPUExecutionProvider")
        return replace(onnx, made={**onnx.made, "onnxruntime": ort.__version__}).sealed()

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """An inference session; the provider that really runs is checked, never fallen back from."""
        session = self._opened(artifact)
        name = artifact.input.name

        def infer(image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            (logits_BKHW,) = session.run(None, {name: image_BCHW})
            return np.asarray(logits_BKHW)

        yield infer

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
            session = self._session(path, "CPUExecutionProvider")
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
        with tempfile.TemporaryDirectory() as scratch:
            session = self._opened(artifact, Path(scratch) / "profile")
            for _ in range(_WARM + runs):
                session.run(None, {artifact.input.name: image_BCHW})
            events = json.loads(Path(session.end_profiling()).read_text())
        return profile_of(_runs_of(events)[_WARM:])

    def _opened(self, artifact: Artifact, profile: Path | None = None) -> ort.InferenceSession:
        artifact.verify()
        provider = "CUDAExecutionProvider" if self.device.kind == "cuda" else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise NotHere("onnxruntime-gpu is not installed, and the CPU build has no CUDA provider")
        session = self._session(artifact.path, provider, profile)
        if session.get_providers()[0] != provider:
            raise NotHere(f"ONNX Runtime fell back from {provider} to {session.get_providers()[0]}")
        return session

    def _optimized(self, path: Path) -> onnx.ModelProto:
        """The graph that this runtime really runs."""
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch) / "optimized.onnx"
            self._session(path, "CPUExecutionProvider", optimized=written)
            return onnx.load(written)

    def _session(
        self, path: Path, provider: str, profile: Path | None = None, optimized: Path | None = None
    ) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        try:
            return ort.InferenceSession(path, options, providers=[provider])
        except _REFUSALS as error:
            raise BackendError(f"ONNX Runtime refuses {path.name}: {_reason(error)}") from None


def _dequantized(codes: NDArray[Any], node: onnx.NodeProto, stored: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    scale, zero = (stored[name] for name in node.input[1:3])
    return (codes.astype(np.float32) - np.float32(zero)) * scale


def _runs_of(events: list[dict[str, Any]]) -> list[tuple[float, list[NodeTime]]]:
    """Each run's whole time and its nodes', in microseconds."""
    runs = []
    nodes: list[NodeTime] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind = event["args"].get("op_name", "")
            nodes.append(NodeTime(names=(_plain_name(event["name"]),), kind=kind, microseconds=event["dur"]))
        elif event.get("name") == "model_run":
            runs.append((float(event["dur"]), nodes))
            nodes = []
    return runs


def _plain_name(name: str) -> str:
    """The name of an ONNX node or of what it puts out, which a fused or rearranged node begins with."""
    return re.sub(r"(_nchwc|_token_\d+|_kernel_time)+$", "", name).removeprefix("fused ")


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
    except _REFUSALS as error:
        raise BackendError(f"ONNX Runtime refuses the model: {_reason(error)}") from None
    outputs = [output.name for output in session.get_outputs()]

    def run(images: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(outputs, session.run(outputs, dict(images)), strict=True))
        except _REFUSALS as error:
            raise BackendError(f"ONNX Runtime refuses the model: {_reason(error)}") from None

    return run


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
