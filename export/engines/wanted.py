"""What an engine is built from and for, and what came of it: the same for TensorRT's Python module and for trtexec."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

Ranges = Mapping[str, Sequence[int]]
"""Shapes of an input with open axes: "min", "opt" and "max"."""


@dataclass(frozen=True)
class Wanted:
    """An engine to be built."""

    input: str
    """Name of the network's input."""
    ranges: Ranges = field(default_factory=dict)
    """Empty where no axis is open."""
    int8: bool = False
    """Whether the file has QuantizeLinear and DequantizeLinear."""
    fp16: bool = False
    """Whether the file has tensors of 16-bit floats."""
    in_32_bits: int = 0
    """Operations that a file in 16 bits keeps in 32, because 16 do not hold what they compute."""
    sparse_layers: int = 0
    """How many layers have weights that sparse kernels take."""
    dla: int | None = None
    """The DLA core; None is the GPU."""
    compute_capability: str | None = None
    """Of a GPU that may be another one than this host's, such as "8.6"; None is the GPU at hand."""
    workspace_mb: int | None = None
    """Memory that one layer may use while it runs; None is all that the GPU has. A Jetson's is everybody's memory."""


@dataclass(frozen=True)
class Built:
    """An engine that was built."""

    engine: bytes = field(repr=False)
    log: Sequence[str]
    """What TensorRT said, a line each."""
    made: Mapping[str, Any]
    """Versions, flags and, where they are known, executed precisions and layers that the DLA did not take."""


def versioned(text: str) -> tuple[int, ...]:
    """The numbers of a version: "10.3.0.30" is (10, 3, 0, 30)."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def weak_precisions(wanted: Wanted) -> Sequence[str]:
    """What a builder that is not strongly typed must be allowed, to build this file as it is written.

    With Q/DQ it wants both, and float layers may then run in 16 bits; a DLA core has nothing wider than 16 bits.
    """
    quantized, halves = wanted.int8, wanted.fp16 or wanted.int8 or wanted.dla is not None
    return [word for word, is_set in (("fp16", halves), ("int8", quantized)) if is_set]


def is_strongly_typed(version: Sequence[int], dla: int | None) -> bool:
    """Whether the file alone decides precisions.

    From 10 on TensorRT can, from 11 on it does nothing else. Before 11 the DLA takes no strongly typed network
    (the guide of 10.7, "Working with DLA").
    """
    return version[0] >= 11 or (version[0] == 10 and dla is None)


def narrowed(version: Sequence[int], wanted: Wanted) -> str:
    """Why this builder could put into 16 bits what the file keeps in 32, in a sentence; empty where it cannot."""
    if not wanted.in_32_bits or is_strongly_typed(version, wanted.dla):
        return ""
    what = "a DLA core computes" if wanted.dla is not None else f"TensorRT {version[0]}, weakly typed, may compute"
    return (
        f"{what} in 16 bits what the file keeps in 32 ({wanted.in_32_bits} operations), where they do not suffice; "
        "build it with TensorRT 10 or newer for the GPU, or leave half out"
    )


def precision_flags(version: Sequence[int], wanted: Wanted) -> dict[str, Any]:
    """How precisions were decided, for the sidecar."""
    if is_strongly_typed(version, wanted.dla):
        return {"strongly_typed": True}
    return {"strongly_typed": False, "allowed": weak_precisions(wanted)}


def target_flags(wanted: Wanted) -> dict[str, Any]:
    """What else was set, for the sidecar."""
    given = {"profile": {key: list(shape) for key, shape in wanted.ranges.items()}, "workspace_mb": wanted.workspace_mb}
    core = {} if wanted.dla is None else {"dla": wanted.dla, "gpu_fallback": True}
    return {**{key: value for key, value in given.items() if value}, **core}


def times_of_trtexec(made: Mapping[str, Any]) -> str:
    """What trtexec timed, to be said behind why nothing else was measured; empty where it timed nothing."""
    told = made.get("trtexec") or {}
    if told.get("latency_ms") is None:
        return ""
    doubts = "".join(f"; {each}" for each in told.get("warnings", []))
    return (
        f"; trtexec timed {told['n']} inferences: median {told['latency_ms']:.3f} ms, of which "
        f"{told['compute_ms']:.3f} ms on the GPU{doubts}"
    )
