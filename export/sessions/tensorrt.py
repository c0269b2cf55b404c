"""A TensorRT engine: how it is built, opened, run and profiled, wherever that is; TensorRT goes before TensorRT-RTX."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import time
import weakref
from pathlib import Path
from typing import Any, Callable

import numpy as np

from export.engines import layers, module, program
from export.engines.cuda import Cuda, gpu_name
from export.engines.layers import EngineLayer
from export.engines.wanted import Built, Wanted
from export.errors import BackendError, NotHere
from export.profile import WARM, NodeTime, Profile, profile_of

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
CARRIER = "onnxruntime_ep_nv_tensorrt_rtx"
"""The package that carries the libraries of TensorRT-RTX for its bindings."""
# TensorRT's own table of NumPy types (trt.nptype) reads names that newer NumPy does not have.
_NUMBERS = {"FLOAT": "<f4", "HALF": "<f2", "INT8": "<i1", "UINT8": "<u1", "INT32": "<i4", "INT64": "<i8", "BOOL": "?"}


def python_module() -> Any:
    """TensorRT's Python module; None where it is not installed."""
    name = next((each for each in MODULES if importlib.util.find_spec(each) is not None), None)
    if name == "tensorrt_rtx_bindings":
        _load_rtx_libraries()
    return None if name is None else importlib.import_module(name)


def version() -> str:
    """That of the runtime.

    Raises:
        ImportError: if there is neither a Python module nor trtexec.
    """
    trt = python_module()
    if trt is not None:
        return str(trt.__version__)
    found = program.found()
    if found is None:
        raise ImportError("there is neither its Python module (tensorrt) nor trtexec")
    try:
        return f"{'.'.join(map(str, program.version(found)))} (trtexec)"
    except (BackendError, OSError) as error:
        raise ImportError(str(error)) from None


def built(onnx: Path, wanted: Wanted, caches: Path | None = None) -> Built:
    """The engine of an ONNX file, by the Python module where there is one, else by trtexec.

    Args:
        caches: the folder of what is kept for the next build, by TensorRT's version and GPU; None keeps nothing.

    Raises:
        BackendError: naming the node that is refused, and the reason.
        NotHere: if there is no TensorRT, or no GPU or DLA core that it wants.
    """
    trt, found = python_module(), program.found()
    if trt is not None:
        # TensorRT-RTX times no kernels while it builds.
        return module.built(trt, onnx, wanted, None if module.is_rtx(trt) else _timing_cache(caches))
    assert found is not None, "nobody imports this where there is neither"
    return program.built(found, onnx, wanted, _timing_cache(caches))


def opened(path: Path, threads: int, kind: str, shape: tuple[int, ...]) -> Engine:
    """What computes logits (BKHW) of an image (BCHW) on the GPU ("cuda") or a DLA core of it ("dla0").

    Args:
        shape: of the input, with -1 for open axes: an engine was built for a range of them.

    Raises:
        BackendError: if the engine is of another version or GPU, or there is not enough memory.
        NotHere: if there is no Python module, or no GPU.
    """
    del threads, shape
    return Engine(path, kind)


def profiled(path: Path, threads: int, kind: str, image_BCHW: Any, runs: int) -> Profile:
    """How long each layer takes, by TensorRT's own profiler: medians over warm runs, each with its precision."""
    del threads
    engine = Engine(path, kind)
    try:
        known = {layer.name: layer for layer in engine.layers()}
        found = []
        for _ in range(WARM + runs):
            whole_us, times = engine.timed_by_layer(image_BCHW)
            found.append((whole_us, [_node_time(name, ms, known) for name, ms in times]))
    finally:
        engine.close()
    return profile_of(found[WARM:])


def executed(path: Path, threads: int, kind: str, shape: tuple[int, ...]) -> dict[str, int]:
    """How many convolutions and multiplications of matrices run in each precision, as the engine itself tells."""
    del threads, shape
    engine = Engine(path, kind)
    try:
        return layers.executed(engine.layers())
    finally:
        engine.close()


class Engine:
    """An engine on the GPU with one stream and buffers that are kept from one inference to the next."""

    def __init__(self, path: Path, kind: str) -> None:
        self._trt = python_module()
        if self._trt is None:
            raise NotHere(
                "there is trtexec and no Python module of TensorRT, so no answer can be scored; "
                "install python3-libnvinfer, or name a Python that has it with python: PATH"
            )
        self._name = path.name
        self._log = module.log(self._trt)
        # First, since without a GPU TensorRT says less clearly what is missing.
        self._cuda = Cuda()
        self._give_back = weakref.finalize(self, self._cuda.close)
        try:
            self._engine, self._context = self._loaded(path, kind)
            self._ports = _ports(self._trt, self._engine)
        except BaseException:
            self.close()
            raise
        self._buffers: dict[str, tuple[int, int]] = {}

    def __call__(self, image_BCHW: Any) -> Any:
        """The logits (BKHW) of an image (BCHW)."""
        (given, kind), (answer, out_kind) = self._ports
        image = np.ascontiguousarray(image_BCHW, dtype=kind)
        logits = np.empty(self._shaped(given, image.shape, answer), dtype=out_kind)
        self._cuda.copy_in(self._buffer(given, image.nbytes), image)
        self._buffer(answer, logits.nbytes)
        self._enqueue(given, answer)
        self._cuda.copy_out(logits, self._buffers[answer][0])
        self._cuda.wait()
        return logits.astype(np.float32, copy=False)

    def layers(self) -> list[EngineLayer]:
        """What the engine tells of its layers."""
        inspector = self._engine.create_engine_inspector()
        # What a layer computes in may depend on the shape.
        inspector.execution_context = self._context
        return layers.layers_of(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def timed_by_layer(self, image_BCHW: Any) -> tuple[float, list[tuple[str, float]]]:
        """One inference: its microseconds, and the milliseconds of each layer."""
        trt: Any = self._trt
        times: list[tuple[str, float]] = []

        class Times(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times.append((layer_name, ms))

        # TensorRT holds no reference to it.
        self._profiler = Times()
        self._context.profiler = self._profiler
        begun = time.perf_counter()
        self(image_BCHW)
        return (time.perf_counter() - begun) * 1e6, times

    def close(self) -> None:
        """Give back all that it holds on the GPU; twice is once."""
        # In this order: each needs the next until it is gone.
        self._context = self._engine = None
        self._give_back()

    def _loaded(self, path: Path, kind: str) -> tuple[Any, Any]:
        module.register_plugins(self._trt, self._log)
        runtime = self._trt.Runtime(self._log)
        if kind.startswith("dla"):
            runtime.DLA_core = int(kind[len("dla") :])
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise BackendError(f"TensorRT {self._trt.__version__} cannot load {path.name}: {self._log.last}")
        context = engine.create_execution_context()
        if context is None:
            raise BackendError(f"TensorRT cannot run {path.name}: {self._log.last}")
        # Its log and runtime live as long as it does.
        self._runtime = runtime
        return engine, context

    def _shaped(self, given: str, shape: tuple[int, ...], answer: str) -> tuple[int, ...]:
        """Tell the input's shape; returns the output's."""
        if hasattr(self._context, "execute_async_v3"):
            taken, told = self._context.set_input_shape(given, shape), self._context.get_tensor_shape
        else:
            index = self._engine.get_binding_index
            taken = self._context.set_binding_shape(index(given), shape)
            told = lambda name: self._context.get_binding_shape(index(name))  # noqa: E731
        if not taken:
            raise BackendError(f"{self._name} takes no input of shape {list(shape)}: {self._log.last}")
        return tuple(told(answer))

    def _buffer(self, name: str, size: int) -> int:
        """The address of so many bytes for this tensor: the same until more are needed."""
        address, held = self._buffers.get(name, (0, -1))
        if held < size:
            if held >= 0:
                self._cuda.free(self._buffers.pop(name)[0])
            address = self._cuda.memory(size)
            self._buffers[name] = address, size
        return address

    def _enqueue(self, *names: str) -> None:
        if hasattr(self._context, "execute_async_v3"):
            for name in names:
                self._context.set_tensor_address(name, self._buffers[name][0])
            done = self._context.execute_async_v3(self._cuda.stream)
        else:
            bindings = [0] * self._engine.num_bindings
            for name in names:
                bindings[self._engine.get_binding_index(name)] = self._buffers[name][0]
            done = self._context.execute_async_v2(bindings, self._cuda.stream)
        if not done:
            raise BackendError(f"TensorRT failed to run {self._name}: {self._log.last}")


def _timing_cache(folder: Path | None) -> Path | None:
    """Where what kernels took is kept: it holds for one version of TensorRT on one GPU."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder / re.sub(r"[^\w.-]+", "_", f"{version()}-{gpu_name() or 'unknown'}.timing")


def _ports(trt: Any, engine: Any) -> tuple[tuple[str, str], tuple[str, str]]:
    """The names and types of the input and the output."""
    if hasattr(engine, "num_io_tensors"):
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        kind: Callable[[str], Any] = engine.get_tensor_dtype
    else:
        names = [engine.get_binding_name(index) for index in range(engine.num_bindings)]
        inputs = [name for name in names if engine.binding_is_input(name)]
        kind = lambda name: engine.get_binding_dtype(engine.get_binding_index(name))  # noqa: E731
    ports = inputs + [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(ports) != 2:
        raise BackendError(f"the engine has the inputs and outputs {', '.join(names)}: one of each is taken")
    unknown = [kind(name).name for name in ports if kind(name).name not in _NUMBERS]
    if unknown:
        raise BackendError(f"the engine takes or gives {unknown[0]}, which NumPy does not have")
    given, answer = ((name, _NUMBERS[kind(name).name]) for name in ports)
    return given, answer


def _node_time(name: str, milliseconds: float, known: dict[str, EngineLayer]) -> NodeTime:
    layer = known.get(name) or known.get(re.sub(r" \[profile \d+\]$", "", name))
    names = layers.names_in(name) if layer is None else layer.names
    kind, precision = ("", "") if layer is None else (layer.kind, layer.precision)
    return NodeTime(names=names, kind=kind or "engine layer", microseconds=milliseconds * 1e3, precision=precision)


def _load_rtx_libraries() -> None:
    """Load the libraries that another package carries, so that the bindings find them by their sonames."""
    carrier = importlib.util.find_spec(CARRIER)
    if carrier is None or not carrier.submodule_search_locations:
        raise ImportError("onnxruntime-ep-nv-tensorrt-rtx-cu13 (the TensorRT-RTX libraries)")
    folder = Path(carrier.submodule_search_locations[0])
    for stem in ("libcudart.so", "libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"):
        for library in sorted(folder.glob(f"{stem}*")):
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


# Whoever imports this is told where there is nothing to open an engine with.
version()
