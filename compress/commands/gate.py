"""`compress gate`: a finished run's measurements judged again, by its own gates or by others; nothing is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.gates.judging.judge import judge
from compress.pipeline.finished import finished
from compress.pipeline.manifest import unsealed
from compress.recipe.gates_file import gates_of, read_gates_file
from compress.report.report import exit_code


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What gates say of what was measured."""

    record: dict[str, Any]
    """As report.json, with these verdicts as its `gates`."""
    notes: tuple[str, ...]
    """What a reader should know besides."""
    exit_code: int


def gate(folder: Path, gates: Path | None = None) -> Judged:
    """Judge the run in this folder, which is only read.

    Args:
        gates: a YAML file with a list of gates; None takes those of the run's recipe.

    Raises:
        SegpressError: if there is no finished run, or its report was changed.
        RecipeError: if the gates are wrong, or there are none.
    """
    run = finished(folder)
    recipe = run.record["recipe"]
    chosen = gates_of(recipe, run.path) if gates is None else read_gates_file(gates, recipe)
    verdicts = judge(chosen, run.rows)
    record = {**run.record, "gates": [verdict.as_dict() for verdict in verdicts]}
    return Judged(record=record, notes=unsealed(folder), exit_code=exit_code(verdicts))
