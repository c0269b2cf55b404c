"""All gates of a recipe on all rows of a run."""

from __future__ import annotations

from collections.abc import Sequence

from compress.gates.judging.gate import Gate
from compress.gates.judging.verdict import Verdict
from compress.measure.row import Row


def judge(gates: Sequence[tuple[str, Gate]], rows: Sequence[Row]) -> list[Verdict]:
    """One verdict for each gate on each artifact of the last step (and each class, for a score), in their order."""
    return [verdict for _, gate in gates for verdict in gate(rows)]
