"""What every step of a recipe depends on, as the key that its first network has."""

from __future__ import annotations

from pathlib import Path

from compress.cache import code_key, key_of, versions
from compress.recipe import Recipe
from compress.task import Task
from export.files import sha256


def first_key(recipe: Recipe, task: Task) -> str:
    """What every step depends on: our code, the libraries, the network, its weights, the data, the seed."""
    weights = sha256(weights_of(recipe))
    return key_of(code_key(), versions(), recipe.network, weights, task.data.fingerprint(), recipe.seed, recipe.dynamic)


def weights_of(recipe: Recipe) -> Path:
    """The file of the recipe's weights, which a task cannot be made without."""
    assert recipe.weights is not None
    return recipe.weights
