"""What was measured of one step on one runtime of one device: a row of the report, which gates judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["measured", "built", "not measured"]

NOISE = 0.97
"""A speed-up below this is no noise of two medians taken in turns."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step's network on one backend of one device."""

    step: str
    """"baseline", "01-int8", ..."""
    backend: str
    device: str
    status: Status
    reason: str | None = None
    """Why it was not measured."""
    artifact: str | None = None
    """Path relative to the run's folder."""
    sha256: Mapping[str, str] | None = None
    """Of each of the artifact's files, by name."""
    params: int | None
    macs: int | None
    """Multiply-accumulates of one image; None, as `params`, where there is no network: its pass refused."""
    bit_operations: int | None = None
    """Multiply-accumulates, each times the bits of its weight, as this runtime gets the network."""
    size_mb: float | None = None
    scores: Mapping[str, Any] | None = None
    """`Scores.as_dict()`."""
    dice_drop: Mapping[str, Any] | None = None
    """From the baseline, for "mean" and each class: drop, lower and upper limit (one-sided 95 %), n, collapsed."""
    step_drop: Mapping[str, Any] | None = None
    """The same from the step before on the same runtime."""
    latency_ms: Mapping[str, Any] | None = None
    """p50, p90, p95, p99, max, n of the network alone; end_to_end_p50; "screening" where n is too small for p99;
    "throttled": by what the device was slowed down meanwhile, null where it does not tell."""
    floor: Mapping[str, Any] | None = None
    """The time that cannot be beaten on a device whose peaks are published: "ms", and "by" what; no prediction."""
    watch: Mapping[str, Any] | None = None
    """What power, heat and clocks were while it ran (`Watch` in export/remote/answers.py), or "why" nothing is told;
    None where it was not watched: the baseline and the last step are."""
    peak_memory_mb: float | None = None
    parity: Mapping[str, Any] | None = None
    """Against the torch network of the same step: relative_error, flipped (share of pixels), cases."""
    layers: Mapping[str, int] | None = None
    """Convolutions in "integer" and in "float", as placed in the artifact."""
    executed: Mapping[str, int] | None = None
    """How many convolutions and multiplications of matrices ran in each precision ("INT8", "FP16", "FP32"), as the
    runtime itself tells: the proof that integers are computed with, which the file alone is not."""
    uncovered: Sequence[Mapping[str, str]] | None = None
    """Every convolution and multiplication of matrices that did not run in the integers asked for: `layer` which, what
    it `ran` in, and `why`; None where integers were not asked for, or the runtime does not tell."""
    fallback: Mapping[str, Any] | None = None
    """On a DLA core: `layers` how many it left to the GPU, `names` which, `on_dla` how many parts it took, `why` as
    TensorRT warned; None where that is not known, or there is no such core."""
    processors: Mapping[str, Any] | None = None
    """On which CPUs it answers alike, and why (`Processors`); None where it is not for a CPU."""
    slower: Mapping[str, Any] | None = None
    """Where it is slower than the step before it on the same runtime, or hardly faster: `than` which, `speed_up`, and
    its `layers` that cost it: name, milliseconds before and after and, where it is not slower, what the layer is."""
    flags: Mapping[str, Any] = field(default_factory=dict)
