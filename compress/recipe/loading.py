"""A recipe file -> `Recipe`, or a plain sentence for each mistake: where it is, what is wrong, what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.errors import RecipeError
from compress.recipe.choices import why_no_run
from compress.recipe.entries import Entries
from compress.recipe.form import read_sections
from compress.recipe.recipe import Recipe
from compress.recipe.yaml_file import read_yaml


def load(path: Path, data_root: Path | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        data_root: replaces the root of the recipe's data folder (`--data`).

    Raises:
        RecipeError: with every mistake found, each with its place.
    """
    recipe, mistakes = read(path, data_root)
    if mistakes or recipe is None:
        raise RecipeError(str(path), mistakes)
    return recipe


def read(path: Path, data_root: Path | None = None) -> tuple[Recipe | None, list[str]]:
    """A recipe without what is wrong in it, and its mistakes; None where its network or its data is wrong.

    Raises:
        RecipeError: if it cannot be read at all, or leaves choices to a search.
    """
    text = text_of(path, data_root)
    if why := why_no_run(text):
        raise RecipeError(str(path), [why])
    entries = Entries(path)
    recipe = read_sections(entries, text)
    return recipe, entries.mistakes


def text_of(path: Path, data_root: Path | None = None) -> dict[str, Any]:
    """What the file of a recipe says, with another data folder where one is given; nothing of it is checked.

    Raises:
        RecipeError: if it cannot be read, or its data is no folder.
    """
    text = {key: value for key, value in read_yaml(path).items() if value is not None}
    return text if data_root is None else _with_root(path, text, data_root)


def _with_root(path: Path, text: dict[str, Any], root: Path) -> dict[str, Any]:
    data = text.get("data")
    data = {data: None} if isinstance(data, str) else data
    known = [word for word in ("folder", "nifti", "nnunet") if isinstance(data, dict) and word in data]
    if not isinstance(data, dict) or not known:
        raise RecipeError(str(path), ["--data gives a folder, but the recipe's data is not a folder"])
    options = data[known[0]] or {}
    if not isinstance(options, dict):
        return text
    return {**text, "data": {**data, known[0]: {**options, "root": str(root.absolute())}}}
