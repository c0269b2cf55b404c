"""The points of the front as recipe files, each of which `compress run` takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from compress.recipe.entries import Entries
from compress.report.derived.chosen import in_words
from compress.search.bench import Bench
from compress.search.loading import Searchable
from compress.search.record import said_of
from compress.search.trial import Trial
from export.files import make_folder, write_bytes

FOLDER = "front"
_PATHS = {"network": ("weights", "path"), "data": ("root",)}
"""Options that are paths, looked for beside the recipe; the new one lies elsewhere."""


def write_points(found: Searchable, front: Sequence[Trial], bench: Bench, folder: Path) -> list[Path]:
    """front/01.yaml, 02.yaml, ...: whole recipes, the best of the first objective first; those of before are gone."""
    place = folder / FOLDER
    shutil.rmtree(place, ignore_errors=True)
    make_folder(place)
    paths = []
    for index, trial in enumerate(front, start=1):
        path = place / f"{index:02d}.yaml"
        trained = bench.trained(found.recipe(found.space.of(trial.chosen))).weights
        text = recipe_of(found, trial, path, index, trained)
        body = yaml.safe_dump(text, sort_keys=False, allow_unicode=True, width=110)
        write_bytes(path, f"{_head(found, trial, path)}{body}".encode())
        paths.append(path)
    return paths


def recipe_of(found: Searchable, trial: Trial, path: Path, index: int, weights: Path | None) -> dict[str, Any]:
    """The text of a point's recipe, its paths as they are from where it lies.

    Args:
        weights: where they are; those of a network that was trained by the search are named in no recipe yet.
    """
    text = dict(found.space.of(trial.chosen).text)
    for section, options in _PATHS.items():
        text[section] = _moved(text.get(section), options, Entries(found.path), path.parent)
    network = text["network"]
    ((word, options),) = ({network: {}} if isinstance(network, str) else network).items()
    if weights is not None and "weights" not in (options or {}) and word != "onnx":
        place = os.path.relpath(weights.resolve(), path.parent.resolve())
        text["network"] = {word: {**(options or {}), "weights": place}}
        # It is trained.
        text.pop("train", None)
    return {**text, "name": f"{found.name}-{index:02d}"}


def _moved(section: Any, options: Sequence[str], entries: Entries, to: Path) -> Any:
    if not isinstance(section, Mapping):
        return section
    return {
        word: {
            key: os.path.relpath(entries.resolved(value).resolve(), to.resolve())
            if key in options and isinstance(value, str) and not Path(value).is_absolute()
            else value
            for key, value in (given or {}).items()
        }
        for word, given in section.items()
    }


def _head(found: Searchable, trial: Trial, path: Path) -> str:
    said = ", ".join(said_of(found.goals, trial))
    chosen = "".join(f"#   {name}: {in_words(value)}\n" for name, value in trial.values.items())
    return (
        f"# Trial {trial.number} of the search {found.name}. On validation cases: {said}.\n{chosen}"
        "# It was chosen by the validation cases; this scores it on test cases, once:\n"
        f"#   compress run {path}\n"
    )
