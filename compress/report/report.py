"""The report: one row for each step on each backend and device, and one verdict for each gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.gates.judging.verdict import Verdict
from compress.measure.row import Row


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
        """See `exit_code`."""
        return exit_code(self.gates)


def exit_code(gates: Sequence[Verdict]) -> int:
    """0 every gate holds, 1 one fails, 3 none fails but one is inconclusive."""
    rulings = {gate.verdict for gate in gates}
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
