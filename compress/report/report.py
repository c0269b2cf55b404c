"""The report: one row for each step on each backend and device, and one verdict for each gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["measured", "built", "not measured"]
Ruling = Literal["holds", "fails", "inconclusive"]

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
    """p50, p90, p95, p99, max, n of the network alone; end_to_end_p50; "screening" where n is too small for p99."""
    peak_memory_mb: float | None = None
    parity: Mapping[str, Any] | None = None
    """Against the torch network of the same step: relative_error, flipped (share of pixels), cases."""
    layers: Mapping[str, int] | None = None
    """Convolutions in "integer" and in "float", as placed in the artifact."""
    processors: Mapping[str, Any] | None = None
    """On which CPUs it answers alike, and why (`Processors`); None where it is not for a CPU."""
    slower: Mapping[str, Any] | None = None
    """Where it is slower than the step before it on the same runtime, or hardly faster: `than` which, `speed_up`, and
    its `layers` that cost it: name, milliseconds before and after and, where it is not slower, what the layer is."""
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate says of one artifact."""

    name: str
    bound: Literal["at_most", "at_least"]
    limit: float
    value: float | None
    upper: float | None
    """One-sided 95 % upper limit of a drop; None for gates on a single number."""
    device: str | None
    backend: str | None
    class_name: str | None
    verdict: Ruling
    reason: str
    over: str | None = None
    """What a ratio is over, where the recipe says it: a backend, a step, a chain of `compare`."""

    def as_dict(self) -> dict[str, Any]:
        record = asdict(self)
        record["class"] = record.pop("class_name")
        return record


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a run found out; `as_dict` is report.json."""

    name: str
    seed: int
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]
    host: Mapping[str, Any]
    cases: Mapping[str, int]
    data: Mapping[str, Any]
    """Source, classes, unit of distances, what the cases of each role were used for, test looks."""
    steps: Sequence[Mapping[str, Any]]
    """For each step: word, options, params, macs, seconds it took, and notes on what it did and what it did not;
    `chain` is None for the recipe's own passes, else the title of the chain that they are compared with."""
    rows: Sequence[Row]
    gates: Sequence[Verdict]
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the "data" (every file that is used, and its role) and of the "weights"."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """The "date", and the "commit" of the recipe's repository: what two runs of one seed may differ in beside times."""

    def as_dict(self) -> dict[str, Any]:
        plain = ("name", "made", "seed", "recipe", "versions", "host", "cases", "data", "hashes", "steps")
        record = {key: getattr(self, key) for key in plain}
        return {**record, "rows": [asdict(row) for row in self.rows], "gates": [gate.as_dict() for gate in self.gates]}

    @property
    def exit_code(self) -> int:
        """0 every gate holds, 1 one fails, 3 none fails but one is inconclusive."""
        rulings = {gate.verdict for gate in self.gates}
        return 1 if "fails" in rulings else 3 if "inconclusive" in rulings else 0


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """One test case to look at: the image, the truth, and both networks' answers, all of one size."""

    case: str
    place: str | None = None
    """Which slice of a volume it is; None for images."""
    image_HWC: NDArray[np.uint8]
    """C is 1 or 3."""
    truth_HW: NDArray[np.uint8]
    before_HW: NDArray[np.uint8]
    after_HW: NDArray[np.uint8]
    dice_before: float | None
    dice_after: float | None
    after: str
    """Which artifact "after" is, such as "01-int8 on openvino (cpu)"."""
