"""Our own networks without the JSON that is saved beside them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError

from compress import networks
from compress.errors import SegpressError
from compress.recognition.tensors.state import State, contained, first_convolution, last_convolution, likeness
from export.registry import named, words

FOREIGN = ("smp", "monai", "torchvision", "timm", "python", "onnx")
ALIKE = 0.6
"""A file has at least this share of a network's names, or the network of the file's; numbers in them do not count."""


def candidates(state: State) -> Iterator[dict[str, Any]]:
    """Networks of ours whose tensors these may be."""
    stem, last = first_convolution(state), last_convolution(state)
    if stem is None or last is None:
        return
    told = {"classes": len(last), "in_channels": int(stem.shape[1])}
    parts = {name.partition(".")[0] for name in state}
    found: dict[str, tuple[float, list[dict[str, Any]]]] = {}
    for word in words("compress.networks"):
        if word in FOREIGN or not _speaks_of(word, parts):
            continue
        kind = named("compress.networks", word)
        if kind.dims != stem.ndim - 2:
            continue
        options = {option.name: option for option in dataclasses.fields(kind)}
        plain = {**told, **({"width": len(stem)} if "width" in options else {})}
        built = _tensors(word, plain)
        if built is not None and contained(state, built) >= ALIKE:
            choices = [options[name] for name in ("norm", "up") if name in options]
            found[word] = _likest(state, word, plain, choices)
    for word in sorted(found, key=lambda each: -found[each][0]):
        deep = "depth" in {option.name for option in dataclasses.fields(named("compress.networks", word))}
        for options in found[word][1]:
            yield {word: options}
        for depth in range(1, 7) if deep else ():
            yield from ({word: {**options, "depth": depth}} for options in found[word][1])


def _speaks_of(word: str, parts: Collection[str]) -> bool:
    """Whether the file of a network has parts of these names: to build all of ours takes seconds."""
    text = (Path(networks.__path__[0]) / f"{word}.py").read_text(encoding="utf-8")
    return all(re.search(rf"\bself\.{re.escape(part)}\b", text) for part in parts)


def _likest(state: State, word: str, options: dict[str, Any], choices: list[Any]) -> tuple[float, list[dict[str, Any]]]:
    """The options with the words whose names are likest to those of the file (several may be equally), and how like."""
    best, ways = likeness(state, _tensors(word, options) or {}), [options]
    for choice in choices:
        scored = [(likeness(state, _tensors(word, way) or {}), way) for way in _ways(ways, choice)]
        best = max(like for like, _ in scored)
        ways = [way for like, way in scored if like == best]
    return best, ways


def _ways(ways: list[dict[str, Any]], choice: Any) -> list[dict[str, Any]]:
    return [{**way, **each} for way in ways for each in _words_of(choice)]


def _words_of(option: Any) -> list[dict[str, Any]]:
    """What an option of a few words may be, its default first."""
    allowed = () if option is None else get_args(option.type)
    return [{}, *({option.name: word} for word in allowed if isinstance(word, str) and word != option.default)]


def _tensors(word: str, options: dict[str, Any]) -> State | None:
    try:
        with torch.device("meta"):
            net: State = named("compress.networks", word)(**options)().state_dict()
            return net
    except (SegpressError, ValidationError, RuntimeError, TypeError):
        return None
