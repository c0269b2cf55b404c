"""Gates that a finished run is judged by again: those of its own recipe, or of a YAML file in the recipe's grammar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import RecipeError
from compress.gates.judging.gate import Gate
from compress.recipe.entries import Entries
from compress.recipe.steps import read_gates
from compress.recipe.yaml_file import read_any

Gates = list[tuple[str, Gate]]


def gates_of(recipe: Mapping[str, Any], path: Path) -> Gates:
    """The gates of a recipe that a report holds.

    Args:
        recipe: its text, as report.json has it.
        path: the report, which mistakes are told of.

    Raises:
        RecipeError: if there are none, or this version does not take them: which, and what would be right.
    """
    return _gates(recipe, path, "its recipe has no gates: give others in a file (--gates)")


def read_gates_file(path: Path, recipe: Mapping[str, Any]) -> Gates:
    """The gates of a YAML file: a list, or a recipe's `gates:` with whatever else is there.

    Args:
        recipe: of the run that they will judge, whose steps they may name.

    Raises:
        RecipeError: if the file cannot be read, or holds no gates, with every mistake and its place.
    """
    read = read_any(path, "file of gates")
    given = read.get("gates") if isinstance(read, dict) and "gates" in read else read
    if not isinstance(given, list):
        raise RecipeError(
            str(path), ["a list of gates, such as '- dice_drop: {at_most: 0.01}', alone or under 'gates:'"]
        )
    return _gates({**recipe, "gates": given}, path, "it has no gates, such as '- dice_drop: {at_most: 0.01}'")


def _gates(text: Mapping[str, Any], path: Path, none: str) -> Gates:
    entries = Entries(path)
    gates = read_gates(entries, dict(text))
    mistakes = entries.mistakes or ([] if gates else [none])
    if mistakes:
        raise RecipeError(str(path), mistakes)
    return gates
