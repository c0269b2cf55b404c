"""The JSON schema of a recipe in which choices may stand: what `compress schema` prints for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from compress.recipe import schema as schema_of_values
from compress.recipe.choices import NAMED, NUMBER, ONE_OF, SECTION
from compress.recipe.json_schema import one_word
from compress.search.settings import Effort
from export.registry import named, words

Schema = dict[str, Any]
_AS_IT_IS = ("name",)
"""Keys of a recipe of which a search has one value."""
_TOLD = ("description", "title", "default")


def schema() -> Schema:
    """The schema of recipes, with or without choices."""
    plain = schema_of_values()
    opened = _Opened()
    properties = {key: value if key in _AS_IT_IS else opened.value(value) for key, value in plain["properties"].items()}
    shared = {name: opened.inside(value) for name, value in plain["$defs"].items()}
    properties |= {ONE_OF: _named_choices(), SECTION: _section()}
    return {**plain, "properties": properties, "$defs": {**shared, **opened.shared, "number_between": _between()}}


class _Opened:
    """Schemas in which a choice may stand in the place of each value; the same one is there once, by a name."""

    def __init__(self) -> None:
        self.shared: Schema = {}
        self._names: dict[str, str] = {}

    def value(self, given: Schema, *, in_list: bool = False) -> Schema:
        """A value, or what a search chooses for it."""
        inside = self.inside(given)
        told = {key: inside.pop(key) for key in _TOLD if key in inside}
        which = f"{json.dumps(inside, sort_keys=True)}{in_list}"
        if which not in self._names:
            name = self._names[which] = f"open{len(self._names) + 1}"
            self.shared[name] = {"anyOf": [inside, *_choices(_ref(name), in_list=in_list)]}
        return {**told, **_ref(self._names[which])}

    def inside(self, given: Schema) -> Schema:
        """A schema whose parts are opened, and not itself."""
        made = dict(given)
        if isinstance(made.get("properties"), dict):
            made["properties"] = {key: self.value(value) for key, value in made["properties"].items()}
        if isinstance(made.get("items"), dict):
            made["items"] = self.value(made["items"], in_list=True)
        if isinstance(made.get("prefixItems"), list):
            made["prefixItems"] = [self.value(each) for each in made["prefixItems"]]
        if isinstance(made.get("additionalProperties"), dict):
            made["additionalProperties"] = self.value(made["additionalProperties"])
        for key in ("anyOf", "allOf", "oneOf"):
            if isinstance(made.get(key), list):
                made[key] = [self.inside(each) for each in made[key]]
        return made


def _choices(one: Schema, *, in_list: bool) -> list[Schema]:
    """One of several values, the value of a choice with a name, and a number between two."""
    entries = [one, {"const": "none"}, {"type": "array", "items": one}] if in_list else [one]
    values = {"type": "array", "items": {"anyOf": entries}, "minItems": 1}
    return [_mapping(ONE_OF, values), _mapping(NAMED, {"type": "string"}), _ref("number_between")]


def _mapping(key: str, value: Schema) -> Schema:
    return {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _between() -> Schema:
    numbers = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    made = _mapping(NUMBER, {**numbers, "description": "The lowest and the highest number, both included."})
    made["properties"] |= {
        "step": {"type": "number", "exclusiveMinimum": 0},
        "log": {"type": "boolean", "description": "Drawn evenly by its logarithm, as a rate is."},
    }
    return made


def _named_choices() -> Schema:
    values = {"type": "array", "minItems": 1}
    one = {"anyOf": [values, _mapping(ONE_OF, values), _ref("number_between")]}
    return {
        "type": "object",
        "additionalProperties": one,
        "description": "Choices for several places, by a name: {choice: NAME} stands for the same value at each.",
    }


def _section() -> Schema:
    made = TypeAdapter(Effort).json_schema()
    made["properties"]["strategy"]["enum"] = words("compress.search.strategies")
    kinds = {word: _objective(word) for word in words("compress.search.objectives")}
    made["properties"]["objectives"] = {"type": "array", "items": one_word(kinds, bare=True), "minItems": 1}
    return {**made, "required": ["objectives"], "description": "How `compress search` tries the recipe's choices."}


def _objective(word: str) -> Schema:
    made: Mapping[str, Any] = TypeAdapter(named("compress.search.objectives", word)).json_schema()
    options = dict(made["properties"])
    if "backend" in options:
        options["backend"] = {**options["backend"], "enum": words("export.backends")}
    return {**made, "properties": options}
