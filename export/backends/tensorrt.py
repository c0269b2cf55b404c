"""TensorRT 8.5 to 11, and TensorRT-RTX: one API under three names; from 10 on the file alone decides precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import onnx as onnx_format
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.device import Device, Kind, cuda_capabilities
from export.devices.cuda import CUDA
from export.engines.wanted import Wanted, times_of_trtexec
from export.errors import BackendError, MissingExtra, NotHere
from export.files import write_bytes
from export.profile import Profile
from export.quantization.rules import Rules
from export.rewrites import in_float32

# The parser takes only symmetric int8 activations. It fuses Quantize on a convolution's inputs, not its output;
# on a residual addition's skip, not its branch; and wants one scale for all of a concatenation. A transposed
# convolution is written as convolution + DepthToSpace: its own per-channel axis is disputed between versions.
# Convolutions of fewer than 16 channels have no integer kernel worth its conversion (NVIDIA, "Working with
# Quantized Types", Q/DQ placement recommendations).
RULES = Rules(
    runtime="tensorrt",
    activations="int8",
    carriers=frozenset({"max_pool", "concat", "shuffle"}),
    behind_carriers=True,
    outputs=False,
    adds="skip",
    one_scale_concat=True,
    transposed_as_convolution=True,
    least_channels=16,
    # Integers of 8 bits may only be constants in front of their DequantizeLinear.
    reads_bits=False,
)


@dataclass(frozen=True, kw_only=True)
class TensorRt:
    """Builds an engine; runs it where there is a driver. TensorRT itself goes before TensorRT-RTX."""

    device: Device = CUDA
    threads: int = 1
    rules: ClassVar[Rules | None] = RULES
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cuda", "dla"})
    runs_modules: ClassVar[bool] = False
    builds_on_device: ClassVar[bool] = True
    """An engine is for one GPU and one version of TensorRT: those of the device."""
    libraries: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt-rtx-cu13-bindings")

    @staticmethod
    def check_installed() -> None:
        """Whether TensorRT is there to build with.

        Raises:
            MissingExtra: if not, with how to install it.
        """
        _sessions()

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """A serialized engine for the device's compute capability, and beside it the log of its build.

        TensorRT-RTX builds for any capability on any host; TensorRT only for the GPU at hand.

        Raises:
            BackendError: with the node that the parser refuses and its reason.
            NotHere: if this needs a GPU to build for, or beside, and there is none.
        """
        sessions = _sessions()
        trt = sessions.python_module()
        is_rtx = trt is not None and "rtx" in trt.__name__
        if not is_rtx or self.device.compute_capability is None:
            self.device.check_here()
        capability = self.device.compute_capability or cuda_capabilities()[0]
        wanted = replace(self.wanted(onnx), compute_capability=capability)
        with _as_rtx_takes_it(onnx) if is_rtx else nullcontext(onnx) as taken:
            onnx, built = taken, sessions.built(taken.path, wanted)
        core = f".{self.device.processor}" if self.device.kind == "dla" else ""
        path = folder / f"{onnx.path.stem}.sm_{capability.replace('.', '')}{core}.engine"
        return self.kept(onnx, path, built.engine, "\n".join(built.log), built.made)

    def wanted(self, onnx: Artifact) -> Wanted:
        """What is told to whoever builds the engine of this file.

        Raises:
            BackendError: if a DLA core is wanted for a file with open axes.
        """
        if self.device.kind == "dla" and -1 in onnx.input.shape:
            raise BackendError(f"{onnx.path.name} has open axes, and a DLA core takes none; leave `dynamic` out")
        model = onnx_format.load(onnx.path)
        return Wanted(
            input=onnx.input.name,
            ranges=_ranges(onnx) if -1 in onnx.input.shape else {},
            int8=any(node.op_type == "QuantizeLinear" for node in model.graph.node),
            fp16=any(tensor.data_type == onnx_format.TensorProto.FLOAT16 for tensor in model.graph.initializer),
            in_32_bits=len(onnx.made.get("half", {}).get("float32", {})),
            sparse_layers=_two_of_four(model.graph),
            dla=self.device.reach.dla,
        )

    def kept(self, onnx: Artifact, path: Path, engine: bytes, log: str, made: Mapping[str, Any]) -> Artifact:
        """An engine as an artifact, with the log of its build beside it.

        Args:
            onnx: what it was built from.
        """
        write_bytes(path, engine)
        write_bytes(path.with_name(f"{path.name}.log"), f"{log}\n".encode())
        told = {
            # What sums a CPU could cut off says nothing of an engine: GPUs add in 32 bits.
            **{key: value for key, value in onnx.made.items() if key != "pair_sums"},
            **made,
            "onnx_sha256": onnx.made.get("sha256"),
            "log": f"{path.name}.log",
        }
        return replace(onnx, path=path, format="tensorrt", made=told).sealed()

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """The engine on the GPU, or on a DLA core; what it holds there is given back at the end."""
        artifact.verify()
        try:
            engine = _sessions().opened(artifact.path, self.threads, self.device.processor, artifact.input.shape)
        except NotHere as error:
            raise NotHere(f"{error}{times_of_trtexec(artifact.made)}") from None
        try:
            yield engine
        finally:
            engine.close()

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {"data_transfers": "included"}

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """How long each layer takes, by TensorRT's own profiler: medians over warm runs."""
        artifact.verify()
        found: Profile = _sessions().profiled(artifact.path, self.threads, self.device.processor, image_BCHW, runs)
        return found

    def executed_precisions(self, artifact: Artifact) -> Mapping[str, int]:
        """How many convolutions run in each precision, as the engine tells."""
        artifact.verify()
        found: dict[str, int] = _sessions().executed(
            artifact.path, self.threads, self.device.processor, artifact.input.shape
        )
        return found


def _sessions() -> Any:
    """How engines are built and opened."""
    try:
        from export.sessions import tensorrt

        tensorrt.version()
    except ImportError as error:
        carrier = str(error) if "libraries" in str(error) else "TensorRT"
        raise MissingExtra(carrier, "tensorrt-rtx") from None
    return tensorrt


@contextmanager
def _as_rtx_takes_it(onnx: Artifact) -> Iterator[Artifact]:
    """The file with transposed convolutions in float32 where they were in bfloat16: TensorRT-RTX (1.7) has none."""
    model, found = in_float32(onnx_format.load(onnx.path), "ConvTranspose")
    if not found:
        yield onnx
        return
    half = onnx.made.get("half", {})
    why = dict.fromkeys(found, "TensorRT-RTX has no transposed convolution in bfloat16")
    made = {**onnx.made, "half": {**half, "float32": {**half.get("float32", {}), **why}}}
    with TemporaryDirectory() as folder:
        path = Path(folder) / onnx.path.name
        write_bytes(path, model.SerializeToString(deterministic=True))
        yield replace(onnx, path=path, made=made)


def _two_of_four(graph: onnx_format.GraphProto) -> int:
    """How many layers of a graph have weights that sparse kernels take.

    Of every four input channels, at each kernel position of each output channel, two or more are zero
    (TensorRT's developer guide, "Sparsity"). Convolutions in groups have no such kernels.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}

    def weight(name: str) -> NDArray[np.bool_] | None:
        """Where a stored tensor is not zero, seen through its scale and its layout."""
        if name in stored:
            return np.asarray(onnx_format.numpy_helper.to_array(stored[name]) != 0)
        node = made.get(name)
        if node is None or node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Cast", "Transpose"):
            return None
        below = weight(node.input[0])
        if below is None or node.op_type != "Transpose":
            return below
        return below.transpose(next((list(attribute.ints) for attribute in node.attribute), None))

    found = 0
    for node in graph.node:
        given = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type not in ("Conv", "Gemm", "MatMul") or given.get("group", 1) > 1:
            continue
        kept = weight(node.input[1])
        inside = 1 if node.op_type == "Conv" or given.get("transB") else -2
        if kept is None or kept.ndim < 2 or kept.shape[inside] % 4 or not kept.any():
            continue
        fours = np.moveaxis(kept, inside, -1).reshape(-1, 4)
        found += int((fours.sum(1) <= 2).all())
    return found


def _ranges(onnx: Artifact) -> dict[str, list[int]]:
    """Open axes need a range: batch 1 to 8, sizes 64 to 1024, tuned for batch 1 at 256."""
    open_batch, *rest = (axis == -1 for axis in onnx.input.shape)
    ranges = {}
    for what, batch, side in (("min", 1, 64), ("opt", 1, 256), ("max", 8, 1024)):
        sides = [side if free else axis for free, axis in zip(rest, onnx.input.shape[1:], strict=True)]
        ranges[what] = [batch if open_batch else onnx.input.shape[0], *sides]
    return ranges
