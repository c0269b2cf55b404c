"""In what precision an artifact's layers ran, and where, as its runtime tells; and why not as was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.pipeline.build import Build
from export.artifact import Artifact
from export.backend import Backend, Inspector, Partitioner, Profiler
from export.errors import NotHere
from export.layers import Layer, layers_of, ran_in
from export.quantization.quantized import Quantized

ASKED = "INT8"
NOT_TOLD = "not told"


def executed(backend: Backend, artifact: Artifact) -> dict[str, int] | None:
    """How many convolutions and multiplications of matrices ran in each precision; None where nothing tells."""
    if "executed" in artifact.made:
        # Told when it was built, by what cannot be asked again.
        return dict(artifact.made["executed"])
    if not isinstance(backend, Inspector):
        return None
    try:
        return dict(backend.executed_precisions(artifact))
    except NotHere:
        return None


def fallback(backend: Backend, artifact: Artifact) -> dict[str, Any] | None:
    """Which layers the processor did not take, and another one computes; None where nothing tells, or all are its own.

    What TensorRT leaves of a DLA core was told when it was built.
    """
    if not isinstance(backend, Partitioner):
        return None
    try:
        return dict(backend.fallback(artifact))
    except NotHere:
        return None


def uncovered(build: Build, backend: Backend, image_BCHW: NDArray[np.float32]) -> list[dict[str, str]] | None:
    """The multiplying layers of an integer artifact that did not run in integers: `layer`, what it `ran` in, and `why`.

    None where integers were not asked for, or nothing tells what ran.
    """
    net, rules, artifact = build.stage.net, build.deployment.rules, build.artifact
    if not isinstance(net, Quantized) or rules is None or artifact is None or not isinstance(backend, Profiler):
        return None
    layers = layers_of(artifact.path.with_suffix(".onnx"), image_BCHW.shape)
    try:
        ran = ran_in(layers, backend.profile(artifact, image_BCHW, runs=1))
    except NotHere:
        return None
    ours = dict(net.in_float(rules))
    return [
        {"layer": layer.name, "ran": precision or NOT_TOLD, "why": _why(layer, precision, ours.get(layer.name))}
        for layer, precision in zip(layers, ran, strict=True)
        # A layer whose work is not known has a shape that only running tells.
        if layer.macs != 0 and precision != ASKED
    ]


def _why(layer: Layer, ran: str, ours: str | None) -> str:
    if ours is not None:
        return ours
    if not layer.bits:
        return "it multiplies two activations: only layers with stored weights are put in integers"
    if layer.bits > 8:
        return "it is in float in the file"
    if not ran:
        return "in integers in the file; the runtime names no kernel for it, having fused it into another"
    return f"in integers in the file; the runtime itself chose a kernel in {ran}"
