"""A recipe: what to do with one network. `load` reads it, `Recipe.task` makes what passes and measurements need."""

from compress.recipe.json_schema import schema
from compress.recipe.loading import load, read
from compress.recipe.recipe import KEYS, Recipe

__all__ = ["KEYS", "Recipe", "load", "read", "schema"]
