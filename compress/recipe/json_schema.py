"""The JSON schema of a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from compress.measure.latency import Timing
from compress.measure.segmentation import Scoring
from compress.recipe.about import About
from compress.recipe.recipe import OPSETS
from compress.train.training import Training
from export.reach import DLA, HOST, Reach
from export.registry import find_device, named, words


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors that complete and check YAML."""
    shared: dict[str, Any] = {}

    def options(kind: type, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        made = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        shared.update(made.pop("$defs", {}))
        made["properties"] = {**made.get("properties", {}), **(extra or {})}
        for option, chosen in (("device", _device), ("backend", _backend)):
            if option in made["properties"]:
                made["properties"][option] = chosen(made["properties"][option])
        return made

    weights = {"weights": {"type": "string", "description": "Trained weights: .safetensors, or a torch state dict."}}
    networks = {word: options(named("compress.networks", word), weights) for word in words("compress.networks")}
    gates = {word: options(named("compress.gates", word)) for word in words("compress.gates")}
    kinds = {word: options(named("compress.data", word)) for word in words("compress.data")}
    steps = {word: options(named("compress.postprocess", word)) for word in words("compress.postprocess")}
    devices = {word: options(Reach) for word in words("export.devices")}
    passes = {word: options(named("compress.passes", word)) for word in words("compress.passes")}
    properties = {
        "name": {"type": "string", "description": "Names the run's folder."},
        "seed": {"type": "integer", "minimum": 0},
        "network": one_word(networks, bare=False),
        "data": one_word(kinds, bare=True),
        "postprocess": {
            "type": "array",
            "items": one_word(steps, bare=True),
            "description": "What is done to the answers of the baseline and of every artifact alike.",
        },
        "passes": {"type": "array", "items": one_word(passes, bare=True)},
        "compare": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": one_word(passes, bare=True), "minItems": 1},
            "description": "Other chains of passes from the same baseline, each with a title, for gates to name.",
        },
        "opset": {"enum": list(OPSETS)},
        "dynamic": {"type": "array", "items": {"enum": ["batch", "size"]}},
        "devices": {"type": "array", "items": one_word(devices, bare=True), "minItems": 1},
        "gates": {"type": "array", "items": one_word(gates, bare=False)},
        "scoring": options(Scoring),
        "latency": options(Timing),
        "train": options(Training),
        "about": options(About),
    }
    return _document(properties, shared)


def _document(properties: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "segpress recipe",
        "type": "object",
        "properties": properties,
        "required": ["network", "data"],
        "additionalProperties": False,
        "$defs": shared,
    }


def one_word(choices: Mapping[str, dict[str, Any]], bare: bool) -> dict[str, Any]:
    """One word with its options; `bare`, the word alone too."""
    mappings = [
        {"type": "object", "properties": {word: made}, "required": [word], "additionalProperties": False}
        for word, made in choices.items()
    ]
    return {"anyOf": [*mappings, *([{"enum": list(choices)}] if bare else [])]}


def _device(option: Mapping[str, Any]) -> dict[str, Any]:
    """A device as gates and passes name one: its word, with the host or the DLA core behind it where they matter."""
    known = words("export.devices")
    with_cores = [word for word in known if find_device(word).dla_cores]
    place = f"(@{HOST})?"
    named = f"^({'|'.join(known)}){place}$|^({'|'.join(with_cores)}){place}{re.escape(DLA)}[0-9]+$"
    return {**_rest(option), "anyOf": [{"enum": [*known, *_null(option)]}, {"type": "string", "pattern": named}]}


def _backend(option: Mapping[str, Any]) -> dict[str, Any]:
    return {**_rest(option), "enum": [*words("export.backends"), *_null(option)]}


def _rest(option: Mapping[str, Any]) -> dict[str, Any]:
    """An option of the schema without what it may be."""
    return {key: value for key, value in option.items() if key not in ("type", "anyOf")}


def _null(option: Mapping[str, Any]) -> list[None]:
    """Null too, where it is null unless it is given."""
    return [None] if option.get("default", "") is None else []
