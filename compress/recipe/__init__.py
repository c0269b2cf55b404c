"""A recipe: what to do with one network. `load` reads it, `Recipe.task` makes what passes and measurements need."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.recipe.json_schema import schema
    from compress.recipe.loading import load, read
    from compress.recipe.recipe import Recipe
    from compress.recipe.yaml_file import KEYS

__all__ = ["KEYS", "Recipe", "load", "read", "schema"]

_FILES = {"schema": "json_schema", "load": "loading", "read": "loading", "KEYS": "yaml_file", "Recipe": "recipe"}


def __getattr__(name: str) -> Any:
    # On first need: gates are read, and finished runs judged, without torch, which all of these import.
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
