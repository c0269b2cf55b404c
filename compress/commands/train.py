"""From a recipe to trained weights: what `compress train` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from compress.cache import claimed
from compress.errors import RecipeError
from compress.pipeline.training import trained_into
from compress.recipe import Recipe


def train(recipe: Recipe, folder: Path, *, fresh: bool = False, say: Callable[[str], None] = print) -> Path:
    """Train the recipe's network; see `trained_into`.

    Raises:
        RecipeError: if the recipe has no `train`.
    """
    if recipe.train is None:
        raise RecipeError(recipe.name, ["lacks the key 'train': compress train needs to know for how long, and how"])
    with claimed(folder, fresh=fresh):
        return trained_into(folder, recipe, say)
