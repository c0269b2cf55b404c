"""TensorRT 10 and 11, and TensorRT-RTX: one API under three names; strongly typed, so the file decides precision."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.device import Device, Kind, cuda_capabilities
from export.devices.cuda import CUDA
from export.errors import BackendError, MissingExtra, NotHere
from export.files import write_bytes
from export.quantization.rules import Rules

# The parser takes only symmetric int8 activations. It fuses Quantize on a convolution's inputs, not its output;
# on a residual addition's skip, not its branch; and wants one scale for all of a concatenation. A transposed
# convolution is written as convolution + DepthToSpace: its own per-channel axis is disputed between versions.
# Convolutions of fewer than 16 channels have no integer kernel worth its conversion (NVIDIA, "Working with
# Quantized Types", Q/DQ placement recommendations).
RULES = Rules(
    activations="int8",
    carriers=frozenset({"max_pool", "concat", "shuffle"}),
    behind_carriers=True,
    outputs=False,
    adds="skip",
    one_scale_concat=True,
    transposed_as_convolution=True,
    least_channels=16,
)


@dataclass(frozen=True, kw_only=True)
class TensorRt:
    """Builds an engine; runs it where there is a driver. TensorRT itself goes before TensorRT-RTX."""

    device: Device = CUDA
    threads: int = 1
    rules: ClassVar[Rules | None] = RULES
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cuda"})
    runs_modules: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt-rtx-cu13-bindings")

    @staticmethod
    def check_installed() -> None:
        """Whether TensorRT is there to build with.

        Raises:
            MissingExtra: if not, with how to install it.
        """
        _tensorrt()

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """A serialized engine for the device's compute capability.

        TensorRT-RTX builds for any capability on any host; TensorRT only for the GPU at hand.

        Raises:
            BackendError: with the node that the parser refuses and its reason.
            NotHere: if this needs a GPU to build for, or beside, and there is none.
        """
        trt, rtx = _tensorrt()
        if not rtx or self.device.compute_capability is None:
            self.device.check_here()
        capability = self.device.compute_capability or cuda_capabilities()[0]
        log = _log(trt)
        builder = trt.Builder(log)
        if builder is None:
            raise NotHere("this TensorRT builds only beside a GPU, and there is no NVIDIA driver")
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(onnx.path.read_bytes()):
            raise BackendError(f"TensorRT refuses {onnx.path.name}: {_refusals(parser)}")
        config = builder.create_builder_config()
        flags: dict[str, Any] = {"strongly_typed": True, "compute_capabilities": [capability]}
        if rtx:
            _aim_at(trt, config, capability)
        sparse = _two_of_four(onnx.path)
        if sparse:
            flags["sparse_weights"] = _with_sparse_weights(trt, config, sparse)
        if -1 in onnx.input.shape:
            flags["profile"] = _with_profile(builder, network, config, onnx)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise BackendError(f"TensorRT cannot build {onnx.path.name}: {log.last or 'no reason given'}")
        path = folder / f"{onnx.path.stem}.sm_{capability.replace('.', '')}.engine"
        write_bytes(path, bytes(engine))
        made = {
            # What sums a CPU could cut off says nothing of an engine: GPUs add in 32 bits.
            **{key: value for key, value in onnx.made.items() if key != "pair_sums"},
            trt.__name__.removesuffix("_bindings"): trt.__version__,
            "flags": flags,
            "onnx_sha256": onnx.made.get("sha256"),
        }
        return replace(onnx, path=path, format="tensorrt", made=made).sealed()

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """The engine on the GPU, with its buffers held as torch CUDA tensors."""
        artifact.verify()
        import torch

        if not torch.cuda.is_available():
            raise NotHere("there is a driver, but this torch is built without CUDA")
        trt, _ = _tensorrt()
        log = _log(trt)
        engine = trt.Runtime(log).deserialize_cuda_engine(artifact.path.read_bytes())
        if engine is None:
            raise BackendError(f"TensorRT cannot load {artifact.path.name}: {log.last or 'no reason given'}")
        context = engine.create_execution_context()
        stream = torch.cuda.Stream()
        names = artifact.input.name, artifact.output.name

        def infer(image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.cuda.stream(stream):
                image = torch.from_numpy(np.ascontiguousarray(image_BCHW)).cuda(non_blocking=True)
                context.set_input_shape(names[0], tuple(image.shape))
                logits = torch.empty(tuple(context.get_tensor_shape(names[1])), dtype=torch.float32, device="cuda")
                context.set_tensor_address(names[0], image.data_ptr())
                context.set_tensor_address(names[1], logits.data_ptr())
                if not context.execute_async_v3(stream.cuda_stream):
                    raise BackendError(f"TensorRT failed to run {artifact.path.name}: {log.last or 'no reason given'}")
                return np.asarray(logits.cpu().numpy())

        yield infer

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {"strongly_typed": True, "data_transfers": "included"}


def _tensorrt() -> tuple[Any, bool]:
    """The Python module, and whether it is TensorRT-RTX."""
    if importlib.util.find_spec("tensorrt") is not None:
        return importlib.import_module("tensorrt"), False
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return importlib.import_module("tensorrt_rtx"), True
    if importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        _load_rtx_libraries()
        return importlib.import_module("tensorrt_rtx_bindings"), True
    raise MissingExtra("TensorRT", "tensorrt-rtx")


def _load_rtx_libraries() -> None:
    """Load the libraries that another package carries, so that the bindings find them by their sonames."""
    carrier = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if carrier is None or not carrier.submodule_search_locations:
        raise MissingExtra("onnxruntime-ep-nv-tensorrt-rtx-cu13 (the TensorRT-RTX libraries)", "tensorrt-rtx")
    folder = Path(carrier.submodule_search_locations[0])
    for stem in ("libcudart.so", "libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"):
        for library in sorted(folder.glob(f"{stem}*")):
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _log(trt: Any) -> Any:
    """A TensorRT logger that prints nothing and keeps the last error."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.last = " ".join(message.split())[:300]

    return Log()


def _strongly_typed(trt: Any) -> int:
    """The network flag; TensorRT 11 and TensorRT-RTX know only strongly typed networks and may lack it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _refusals(parser: Any) -> str:
    said = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = error.node_name() if hasattr(error, "node_name") else ""
        kind = error.node_operator() if hasattr(error, "node_operator") else ""
        said.append(f"node {node or error.node()} ({kind}): {' '.join(error.desc().split())[:200]}")
    return "; ".join(said[:3]) or "no reason given"


def _aim_at(trt: Any, config: Any, capability: str) -> None:
    name = f"SM{capability.replace('.', '')}"
    target = getattr(trt.ComputeCapability, name, None)
    if target is None:
        known = ", ".join(sorted(entry for entry in dir(trt.ComputeCapability) if entry.startswith("SM")))
        raise BackendError(f"TensorRT-RTX {trt.__version__} builds no engines for {name}; it knows {known}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(target, 0)


def _with_sparse_weights(trt: Any, config: Any, layers: int) -> str:
    """Let the builder try its kernels for 2:4 weights; where a dense one is faster, it stays."""
    flag = getattr(trt.BuilderFlag, "SPARSE_WEIGHTS", None)
    if flag is None:
        return f"not set for {layers} layers with 2:4 weights: {trt.__name__} {trt.__version__} has no such flag"
    config.set_flag(flag)
    return f"set for {layers} layers with 2:4 weights"


def _two_of_four(path: Path) -> int:
    """How many layers of a file have weights that sparse kernels take.

    Of every four input channels, at each kernel position of each output channel, two or more are zero
    (TensorRT's developer guide, "Sparsity"). Convolutions in groups have no such kernels.
    """
    import onnx

    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}

    def weight(name: str) -> NDArray[np.bool_] | None:
        """Where a stored tensor is not zero, seen through its scale and its layout."""
        if name in stored:
            return np.asarray(onnx.numpy_helper.to_array(stored[name]) != 0)
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


def _with_profile(builder: Any, network: Any, config: Any, onnx: Artifact) -> dict[str, list[int]]:
    """Open axes need a range: batch 1 to 8, sizes 64 to 1024, tuned for batch 1 at 256."""
    open_batch, *rest = (axis == -1 for axis in onnx.input.shape)
    ranges = {}
    for what, batch, side in (("min", 1, 64), ("opt", 1, 256), ("max", 8, 1024)):
        sides = [side if free else axis for free, axis in zip(rest, onnx.input.shape[1:], strict=True)]
        ranges[what] = [batch if open_batch else onnx.input.shape[0], *sides]
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, ranges["min"], ranges["opt"], ranges["max"])
    config.add_optimization_profile(profile)
    return ranges
