"""An ONNX Runtime session: how a file is opened, run and profiled, wherever that is."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Sequence, Tuple, Union

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as pybind

from export.errors import BackendError, NotHere
from export.profile import WARM, NodeTime, Profile, closed, profile_of

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Provider = Union[str, Tuple[str, Dict[str, str]]]
"""One of this runtime's, by its name, or with options."""
MOVES = re.compile("Memcpy")
"""What only carries values from one processor to another."""
MULTIPLIES = re.compile("Conv|Gemm|MatMul")
"""Kernels that are convolutions or multiplications of matrices."""
SIGNED, BITS = "SignedConv", "1-bit"
"""Our own operator (export/kernels), and what its convolutions compute in."""
PRECISIONS = {"uint8": "INT8", "int8": "INT8", "float16": "FP16", "bfloat16": "BF16", "float": "FP32", "double": "FP64"}
# Its errors have no class in common but Exception; which of them there are depends on the version.
REFUSALS: tuple[type[BaseException], ...] = tuple(
    getattr(pybind, name)
    for name in (
        "EPFail",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
    )
    if hasattr(pybind, name)
)


def version() -> str:
    """That of the runtime."""
    return str(ort.__version__)


def providers() -> Sequence[str]:
    """What this installation of the runtime computes with."""
    return tuple(ort.get_available_providers())


def session(
    path: Path,
    threads: int,
    chosen: Sequence[Provider] = (CPU,),
    profile: Path | None = None,
    optimized: Path | None = None,
    kernels: Path | None = None,
) -> ort.InferenceSession:
    """The file, ready to run.

    Args:
        chosen: the first computes; the others take the nodes that it does not, and the CPU takes the rest.
        kernels: a library of operators that the runtime itself does not have.
        profile: prefix of the file that the runtime's profiler writes.
        optimized: where the graph is written that really runs.

    Raises:
        BackendError: if this runtime refuses the file.
        NotHere: if this installation does not have the provider.
    """
    provider = _name(chosen[0])
    if provider not in providers():
        raise NotHere(f"this ONNX Runtime {version()} has no {provider}: onnxruntime-gpu is not installed")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        if kernels is not None:
            options.register_custom_ops_library(str(kernels))
        made = ort.InferenceSession(str(path), options, providers=list(chosen))
    except REFUSALS as error:
        raise BackendError(f"ONNX Runtime {version()} refuses {path.name}: {reason(error)}") from None
    if made.get_providers()[0] != provider:
        # Where a library that it needs is missing, this runtime says so on its log alone.
        raise NotHere(
            f"ONNX Runtime fell back from {provider} to {made.get_providers()[0]}: a library that {provider} needs "
            f"cannot be loaded, or there is no GPU"
        )
    return made


def opened(
    path: Path, threads: int, kind: str, shape: tuple[int, ...], kernels: Path | None = None
) -> Callable[[Any], Any]:
    """What computes logits (BKHW) of an image (BCHW) on a processor of this kind ("cpu", "cuda").

    Args:
        shape: of the input, with -1 for open axes; this runtime takes each shape as it comes.
    """
    del shape
    return infer_of(session(path, threads, _by_kind(kind), kernels=kernels))


def infer_of(made: ort.InferenceSession) -> Callable[[Any], Any]:
    """What computes logits (BKHW) of an image (BCHW) by a session."""
    name = made.get_inputs()[0].name

    def infer(image_BCHW: Any) -> Any:
        (logits_BKHW,) = made.run(None, {name: image_BCHW})
        return np.asarray(logits_BKHW)

    return infer


def profiled(path: Path, threads: int, kind: str, image_BCHW: Any, runs: int, kernels: Path | None = None) -> Profile:
    """How long each node takes, by this runtime's own profiler: medians over warm runs."""
    return profile_by(path, threads, _by_kind(kind), image_BCHW, runs, kernels)


def profile_by(
    path: Path, threads: int, chosen: Sequence[Provider], image_BCHW: Any, runs: int, kernels: Path | None = None
) -> Profile:
    """The same by these providers."""
    return profile_of(_runs_of(_events(path, threads, chosen, image_BCHW, WARM + runs, kernels))[WARM:])


def executed(
    path: Path, threads: int, kind: str, shape: tuple[int, ...], kernels: Path | None = None
) -> dict[str, int]:
    """How many convolutions and multiplications of matrices run in each precision: those of the kernels that ran once.

    Args:
        shape: of the input; its open axes are closed.
    """
    counts: Counter[str] = Counter()
    for event in _kernels(path, threads, _by_kind(kind), shape, kernels):
        told = event["args"]
        if MULTIPLIES.search(told.get("op_name", "")):
            counts[BITS if told["op_name"] == SIGNED else _precision(told)] += 1
    return dict(counts)


def fallback(path: Path, threads: int, kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What CUDA left to the CPU (`left_to_others`).

    Raises:
        NotHere: on a CPU, which leaves nothing to others.
    """
    if kind != "cuda":
        raise NotHere("a CPU leaves no node to another processor")
    return left_to_others(path, threads, _by_kind(kind), shape)


def left_to_others(path: Path, threads: int, chosen: Sequence[Provider], shape: tuple[int, ...]) -> dict[str, Any]:
    """Which nodes the first provider did not take, by the kernels that ran once: `layers` how many, `names` which, each
    with the provider that has it, and `taken` how many it took (an engine is one). What carries values from one
    processor to another is no node of the network, and not counted.

    Args:
        shape: of the input; its open axes are closed.
    """
    first = _name(chosen[0])
    ran = [
        (_plain_name(event["name"]), event["args"].get("op_name", ""), event["args"].get("provider", "unknown"))
        for event in _kernels(path, threads, chosen, shape)
    ]
    left = [f"{name} ({provider})" for name, kind, provider in ran if provider != first and not MOVES.search(kind)]
    taken = sum(provider == first and not MOVES.search(kind) for _, kind, provider in ran)
    return {"layers": len(left), "names": left, "taken": taken, "why": []}


def reason(error: BaseException) -> str:
    """What the runtime says, on one line."""
    return " ".join(str(error).split())[:300]


def _by_kind(kind: str) -> Sequence[Provider]:
    return (CUDA, CPU) if kind == "cuda" else (CPU,)


def _name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _kernels(
    path: Path, threads: int, chosen: Sequence[Provider], shape: tuple[int, ...], kernels: Path | None = None
) -> list[dict[str, Any]]:
    """The kernels that ran in one inference."""
    image = np.zeros(closed(shape), np.float32)
    events = _events(path, threads, chosen, image, 1, kernels)
    return [each for each in events if each.get("cat") == "Node" and each["name"].endswith("_kernel_time")]


def _events(
    path: Path, threads: int, chosen: Sequence[Provider], image_BCHW: Any, runs: int, kernels: Path | None = None
) -> list[dict[str, Any]]:
    """What its profiler writes of so many inferences."""
    with tempfile.TemporaryDirectory() as scratch:
        made = session(path, threads, chosen, Path(scratch) / "profile", kernels=kernels)
        name = made.get_inputs()[0].name
        for _ in range(runs):
            made.run(None, {name: image_BCHW})
        found: list[dict[str, Any]] = json.loads(Path(made.end_profiling()).read_text(encoding="utf-8"))
        return found


def _precision(told: dict[str, Any]) -> str:
    """That of what a kernel reads first: `input_type_shape` is such as [{"uint8": [1, 16, 32, 32]}, ...]."""
    types = [kind for each in told.get("input_type_shape", [])[:1] for kind in each]
    return PRECISIONS.get(types[0], types[0].upper()) if types else "unknown"


def _runs_of(events: list[dict[str, Any]]) -> list[tuple[float, list[NodeTime]]]:
    """Each run's whole time and its nodes', in microseconds."""
    runs = []
    nodes: list[NodeTime] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind, precision = event["args"].get("op_name", ""), _precision(event["args"])
            names = (_plain_name(event["name"]),)
            nodes.append(NodeTime(names=names, kind=kind, microseconds=event["dur"], precision=precision))
        elif event.get("name") == "model_run":
            runs.append((float(event["dur"]), nodes))
            nodes = []
    return runs


def _plain_name(name: str) -> str:
    """The name of an ONNX node or of what it puts out, which a fused or rearranged node begins with."""
    plain = re.sub(r"(_nchwc|_token_\d+|_kernel_time|/\w+Fusion/?)+$", "", name)
    return plain[len("fused ") :] if plain.startswith("fused ") else plain
