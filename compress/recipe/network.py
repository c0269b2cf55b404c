"""The sections of a recipe that name files: its network with the weights, and its data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from compress.errors import SegpressError
from compress.networks.foreign.head import SeveralOutputs
from compress.recipe.entries import Entries
from compress.recipe.nnunet import data_options, network_options
from compress.recipe.recipe import SEED, which_output
from export.registry import named, words


def read_data(entries: Entries, text: dict[str, Any]) -> Any:
    """The configured data; None if it is wrong."""
    if "data" not in text:
        return None
    chosen = entries.word(text["data"], words("compress.data"), "data", "data")
    if chosen is None:
        return None
    word, options = chosen
    if word == "nnunet":
        options = data_options(entries, options, text.get("network"))
    for key in ("root", "table", "splits"):
        if isinstance(options.get(key), str):
            options = {**options, key: str(entries.resolved(options[key]))}
    if isinstance(options.get("split"), dict):
        options = {**options, "split": {"seed": text.get("seed", SEED), **options["split"]}}
    return entries.options(named("compress.data", word), options, f"data ({word})")


def read_network(
    entries: Entries, text: dict[str, Any], data: Any
) -> tuple[dict[str, dict[str, Any]], Path | None] | None:
    """The network's word and options, and where its weights are; None if the network is wrong."""
    if "network" not in text:
        return None
    chosen = entries.word(text["network"], words("compress.networks"), "network", "network")
    if chosen is None:
        return None
    word, options = chosen
    weights = options.pop("weights", None)
    if weights is not None and not isinstance(weights, str):
        entries.mistakes.append(f"network ({word}): weights: {weights!r} is not a path")
        weights = None
    if word in ("python", "onnx") and isinstance(options.get("path"), str):
        options = {**options, "path": str(entries.resolved(options["path"]).absolute())}
        # An ONNX file brings its weights.
        weights = options["path"] if word == "onnx" and weights is None else weights
    if word == "nnunet":
        options, weights = network_options(entries, options, weights)
    made = entries.options(named("compress.networks", word), options, f"network ({word})")
    weights_path = None if weights is None else entries.resolved(weights)
    if made is None or not _has(entries, made, word, weights_path, data):
        return None
    return {word: dataclasses.asdict(made)}, weights_path


def _has(entries: Entries, network: Any, word: str, weights: Path | None, data: Any) -> bool:
    """Whether another library, or a user's file, has the network that is asked of it."""
    check, where = getattr(network, "check", None), f"network ({word})"
    try:
        if check is not None:
            check()
    except SeveralOutputs as error:
        best = which_output(error.outputs, {word: dataclasses.asdict(network)}, weights, data)
        entries.mistakes.append(f"{where}: {error}; {best}")
        return False
    except SegpressError as error:
        entries.mistakes.append(f"{where}: {error}")
        return False
    return True
