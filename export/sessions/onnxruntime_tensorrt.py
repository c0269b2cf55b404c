"""ONNX Runtime's TensorRT provider: how a file is opened with it, run and profiled, and what it left to others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

from export.profile import Profile
from export.sessions import onnxruntime as plain

PROVIDER = "TensorrtExecutionProvider"
OPTIONS = "provider.json"
"""The suffix of the file with the provider's options, which lies beside the ONNX file (export/backends)."""
ENGINES = "engines"
"""The folder beside the ONNX file in which engines are kept for the next time: they are for this GPU and version."""


def version() -> str:
    """That of the runtime.

    Raises:
        ImportError: if this installation of it was built without the provider.
    """
    if PROVIDER not in plain.providers():
        raise ModuleNotFoundError(f"this ONNX Runtime {plain.version()} has no {PROVIDER}")
    return plain.version()


def providers(path: Path) -> list[plain.Provider]:
    """The provider with the file's options, and behind it those that take what it leaves, as this runtime orders them.

    TensorRT's builder is allowed the types that the file has (issue 13381 of ONNX Runtime: it refuses Q/DQ without),
    never others: what precision a layer has is the file's matter.
    """
    engines = path.parent / ENGINES
    engines.mkdir(exist_ok=True)
    told = json.loads(path.with_suffix(f".{OPTIONS}").read_text(encoding="utf-8"))
    kept = {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(engines),
    }
    return [(PROVIDER, {**told, **kept}), plain.CUDA, plain.CPU]


def opened(path: Path, threads: int, kind: str, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """What computes logits (BKHW) of an image (BCHW) on the GPU.

    Args:
        shape: of the input, with -1 for open axes: an engine is built for the range that the options name.

    Raises:
        NotHere: if the provider is not there, or its libraries are not.
    """
    del kind, shape
    return plain.infer_of(plain.session(path, threads, providers(path)))


def profiled(path: Path, threads: int, kind: str, image_BCHW: Any, runs: int) -> Profile:
    """How long each node takes, by ONNX Runtime's profiler: an engine is one node to it."""
    del kind
    return plain.profile_by(path, threads, providers(path), image_BCHW, runs)


def fallback(path: Path, threads: int, kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What the provider left to CUDA or the CPU (`plain.left_to_others`)."""
    del kind
    return plain.left_to_others(path, threads, providers(path), shape)
