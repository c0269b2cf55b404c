"""An OpenVINO model compiled for the CPU: how a file is opened, run and profiled, wherever that is."""

from __future__ import annotations

import re
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable
from weakref import WeakValueDictionary

import numpy as np
import openvino as ov

from export.errors import BackendError, SurroundingsError
from export.instruction_set import cpu_flags
from export.profile import WARM, NodeTime, Profile, closed, profile_of

MULTIPLY = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
PRECISIONS = {"u8": "INT8", "i8": "INT8", "f16": "FP16", "bf16": "BF16", "f32": "FP32"}


def version() -> str:
    """That of the runtime."""
    return str(ov.__version__)


def settings(threads: int) -> dict[str, Any]:
    """What is set, so that two of its versions and two CPUs compute alike."""
    # By default OpenVINO computes float layers in bf16 where the CPU has it; precision is the file's matter.
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }


def in_16_bits(model: ov.Model) -> dict[str, Any]:
    """What is set for a file with layers in 16 bits: that each computes in the type that it has there.

    Where a CPU has no kernels of that type, or none worth having, they compute in f32; never in another of 16 bits.
    """
    types = {
        each.get_input_element_type(0).get_type_name() for each in model.get_ops() if each.get_type_name() in PRODUCTS
    }
    # With AVX512-FP16 alone a U-Net in f16 took 1.4 times what it takes in f32 (2026.4, in turns).
    slow = not {"amx_fp16", "asimdhp"} & cpu_flags()
    typed = "bf16" in types or ("f16" in types and not slow)
    # A type of its own for every layer: "f16" would put those into it as well that the file has in f32.
    return {"INFERENCE_PRECISION_HINT": "dynamic"} if typed else {}


def compiled(path: Path, threads: int, shape: tuple[int, ...] | None = None, **more: bool) -> ov.CompiledModel:
    """The file compiled for inputs of this shape; None takes that of the file.

    Raises:
        BackendError: if the runtime cannot.
    """
    try:
        core = ov.Core()
        model = core.read_model(str(path))
        if shape is not None and model.is_dynamic():
            # With axes left open, layers whose bias it cannot fuse get another channel's bias (2026.4), and
            # what reads a shape runs in float.
            model.reshape(list(shape))
        return core.compile_model(model, "CPU", {**settings(threads), **in_16_bits(model), **more})
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile {path.name}: {reason(error)}") from None


_live: WeakValueDictionary[Any, ov.CompiledModel] = WeakValueDictionary()
"""What is open, by what it was compiled from: who asks it something need not compile it again."""


def _made_of(path: Path, threads: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size, threads, tuple(shape)


def opened(path: Path, threads: int, kind: str, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """What computes logits (BKHW) of an image (BCHW) on a CPU.

    Args:
        shape: of the input; where it has open axes (-1) the file is compiled for each of the last few shapes.
    """
    assert kind == "cpu", "a runtime is asked only for processors that it computes on"

    @lru_cache(maxsize=4)
    def request(shape: tuple[int, ...]) -> tuple[ov.InferRequest, ov.CompiledModel]:
        model = compiled(path, threads, shape)
        _live[_made_of(path, threads, shape)] = model
        return model.create_infer_request(), model

    if -1 not in shape:
        request(shape)

    def infer(image_BCHW: Any) -> Any:
        # A copy: the request's own output buffer is overwritten by the next call.
        return np.array(request(image_BCHW.shape)[0].infer({0: image_BCHW})[0])

    return infer


def profiled(path: Path, threads: int, kind: str, image_BCHW: Any, runs: int) -> Profile:
    """How long each node takes, by this runtime's own counters: medians over warm runs."""
    assert kind == "cpu", "a runtime is asked only for processors that it computes on"
    model = compiled(path, threads, image_BCHW.shape, PERF_COUNT=True)
    layers = {layer.get_friendly_name(): layer.get_rt_info() for layer in model.get_runtime_model().get_ordered_ops()}
    fused = {name: text(info["originalLayersNames"]).split(",") for name, info in layers.items()}
    ran = {name: precision_in(text(info["runtimePrecision"])) for name, info in layers.items()}
    request = model.create_infer_request()
    found = []
    for _ in range(WARM + runs):
        begun = time.perf_counter()
        request.infer({0: image_BCHW})
        whole = (time.perf_counter() - begun) * 1e6
        executed = [info for info in request.profiling_info if info.status == info.Status.EXECUTED]
        found.append((whole, [_node_time(info, fused, ran) for info in executed]))
    return profile_of(found[WARM:])


def layers(path: Path, threads: int, shape: tuple[int, ...]) -> Counter[tuple[str, str]]:
    """How many layers of each (type, precision) the compiled graph has.

    Args:
        shape: of the input; its open axes are closed.
    """
    shape = closed(shape)
    model = _live.get(_made_of(path, threads, shape)) or compiled(path, threads, shape)
    found = (layer.get_rt_info() for layer in model.get_runtime_model().get_ordered_ops())
    return Counter((text(info["layerType"]), text(info["runtimePrecision"])) for info in found)


def executed(path: Path, threads: int, kind: str, shape: tuple[int, ...]) -> dict[str, int]:
    """How many convolutions and multiplications of matrices run in each precision."""
    assert kind == "cpu", "a runtime is asked only for processors that it computes on"
    counts: Counter[str] = Counter()
    for (layer, precision), number in layers(path, threads, shape).items():
        if layer in MULTIPLY:
            counts[precision_in(precision)] += number
    return dict(counts)


def precision_in(type_name: str) -> str:
    """What the runtime calls u8 is INT8 in a report."""
    return PRECISIONS.get(type_name, type_name.upper())


def reason(error: RuntimeError) -> str:
    """What OpenVINO says; of several nodes that it does not take, the first with a cause of its own."""
    failed = re.findall(r"ONNX node '<Node\((\w+)\): ([^>]*)>': (.*?)\n\n", f"{error}\n\n", re.DOTALL)
    for kind, name, said in failed:
        cause = said.strip().splitlines()[-1].strip()
        # What reads a node that was not taken has no shape.
        if "has to be known" not in cause:
            return f"{kind} ({name}): {cause}"[:300]
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return " ".join(lines)[:300]


def text(value: Any) -> str:
    """An entry of a compiled layer's information."""
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def _node_time(info: Any, fused: dict[str, list[str]], ran: dict[str, str]) -> NodeTime:
    """What a node of the compiled graph took, in what, under the names of the ONNX nodes that were fused into it."""
    names = [name.partition("/")[0] for name in fused.get(info.node_name, []) if name]
    kind = info.node_type
    us, precision = info.real_time.total_seconds() * 1e6, ran.get(info.node_name, "")
    return NodeTime(names=tuple(names), kind=kind, microseconds=us, precision=precision)


def to_compile_with() -> tuple[Path, Path]:
    """The folder of the headers that come with this OpenVINO, and the library of its C interface.

    Raises:
        SurroundingsError: if it comes without one.
    """
    package = Path(ov.__file__).parent
    library = next((package / "libs").glob("libopenvino_c.so*"), None)
    if library is None:
        raise SurroundingsError(f"{package}: this OpenVINO comes without its C library")
    return package / "include", library
