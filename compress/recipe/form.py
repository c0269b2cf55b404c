"""The sections of a recipe, each checked: what is right becomes a `Recipe`, what is wrong a sentence with its place."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from compress.errors import SegpressError
from compress.gates.judging.judge import TAKES, Gate
from compress.measure.latency import Timing
from compress.measure.segmentation import Scoring
from compress.networks.foreign.head import SeveralOutputs
from compress.recipe.options import holds_bool, names_at, nearest, sentence, takes_bool
from compress.recipe.recipe import KEYS, OPSETS, Recipe, other_dims, which_output
from compress.storage.description import shape_of
from compress.train.training import Training
from export.registry import named, words

Value = TypeVar("Value")


class Form:
    """A recipe being filled in; mistakes are collected, not raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mistakes: list[str] = []

    def recipe(self, text: dict[str, Any]) -> Recipe | None:
        for key in text:
            if key not in KEYS:
                self.mistakes.append(f"no key '{key}'{nearest(key, KEYS)}")
        for key in ("network", "data"):
            if key not in text:
                self.mistakes.append(f"lacks the key '{key}'")
        given: dict[str, Any] = {
            "name": self._name(text),
            "seed": self._seed(text),
            "opset": self._opset(text),
            "dynamic": self._dynamic(text),
            "devices": self._devices(text),
            "scoring": self._options(Scoring, text.get("scoring", {}), "scoring") or Scoring(),
            "latency": self._options(Timing, text.get("latency", {}), "latency") or Timing(),
            "passes": self._passes(self._list("passes", text), "passes"),
            "compare": self._compare(text),
            "gates": self._gates(text),
            "data": self._data(text),
            "train": self._options(Training, text["train"], "train") if "train" in text else None,
        }
        network = self._network(text, given["data"])
        if network is None or given["data"] is None:
            return None
        dims = shape_of(network[0]).dims
        if dims != given["data"].dims:
            self.mistakes.append(other_dims(network[0], dims))
            return None
        return Recipe(**given, network=network[0], weights=network[1], text=text, source=self.path)

    def _name(self, text: dict[str, Any]) -> str:
        name = text.get("name", self.path.stem)
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\- ]*", name):
            self.mistakes.append(f"name: {name!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
        return str(name)

    def _seed(self, text: dict[str, Any]) -> int:
        seed = text.get("seed", 7)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            self.mistakes.append(f"seed: {seed!r} is not a whole number from 0 to 2^63 - 1")
            return 7
        return seed

    def _opset(self, text: dict[str, Any]) -> int:
        opset = text.get("opset", 20)
        if not isinstance(opset, int) or opset not in OPSETS:
            self.mistakes.append(f"opset: {opset!r} is not one of {OPSETS[0]} to {OPSETS[-1]}")
            return 20
        return opset

    def _dynamic(self, text: dict[str, Any]) -> tuple[Any, ...]:
        axes = text.get("dynamic", [])
        if not isinstance(axes, list):
            self.mistakes.append("dynamic: a list of the axes left open: [batch], [size] or [batch, size]")
            return ()
        for axis in axes:
            if axis not in ("batch", "size"):
                self.mistakes.append(f"dynamic: no axis '{axis}'{nearest(str(axis), ('batch', 'size'))}")
        return tuple(axes)

    def _devices(self, text: dict[str, Any]) -> tuple[str, ...]:
        devices = text.get("devices", ["cpu"])
        if not isinstance(devices, list) or not devices:
            self.mistakes.append("devices: a list of words, such as [cpu]")
            return ()
        known = words("export.devices")
        for place, device in enumerate(devices):
            if device not in known:
                self.mistakes.append(f"devices[{place}]: no device '{device}'{nearest(str(device), known)}")
            elif device in devices[:place]:
                self.mistakes.append(f"devices[{place}]: '{device}' is given twice")
        return tuple(str(device) for device in devices)

    def _passes(self, steps: Sequence[Any], where: str) -> list[tuple[str, Any]]:
        passes = []
        for place, step in enumerate(steps):
            chosen = self._word(step, words("compress.passes"), f"{where}[{place}]", "pass")
            if chosen is not None:
                word, options = chosen
                made = self._options(named("compress.passes", word), options, f"{where}[{place}] ({word})")
                if made is not None:
                    passes.append((word, made))
        return passes

    def _compare(self, text: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
        chains = text.get("compare", {})
        if not isinstance(chains, dict):
            self.mistakes.append("compare: titles, each with its passes, such as 'int8_alone: [int8]'")
            return {}
        if chains and not text.get("passes"):
            self.mistakes.append("compare: the recipe has no passes of its own to compare; give passes")
        found = {}
        for title, steps in chains.items():
            where = f"compare.{title}"
            if not re.fullmatch(r"[a-z][a-z0-9_]*", title) or title in (*words("export.backends"), "baseline"):
                self.mistakes.append(f"{where}: cannot be a title; use small letters, digits and '_', and no backend")
            if not isinstance(steps, list) or not steps:
                self.mistakes.append(f"{where}: a list of passes, each one word and its options")
                continue
            found[title] = self._passes(steps, where)
        return found

    def _gates(self, text: dict[str, Any]) -> list[tuple[Any, Gate]]:
        gates = []
        for place, limit in enumerate(self._list("gates", text)):
            chosen = self._word(limit, list(TAKES), f"gates[{place}]", "gate")
            if chosen is None:
                continue
            name, options = chosen
            where = f"gates[{place}] ({name})"
            wrong = [key for key in options if key not in TAKES[name]]
            for key in wrong:
                self.mistakes.append(f"{where}: no option '{key}'{nearest(key, TAKES[name])}")
            bound = next(key for key in ("at_least", "at_most", "dice") if key in TAKES[name])
            if bound not in options and not wrong:
                self.mistakes.append(f"{where}: lacks the option '{bound}'")
            # The limit that is missing or misspelt has been told of; the other options are still checked.
            taken = {
                bound: {"at_least": 0} if bound == "dice" else 0,
                **{key: value for key, value in options.items() if key not in wrong},
            }
            gate = self._options(Gate, taken, where)
            if gate is not None:
                self._known(gate.device, words("export.devices"), f"{where}: no device")
                self._known(gate.backend, words("export.backends"), f"{where}: no backend")
                self._known(gate.over, [*words("export.backends"), *_steps(text)], f"{where}: no backend or step")
                gates.append((name, gate))
        return gates

    def _known(self, word: str | None, known: Sequence[str], what: str) -> None:
        if word is not None and word not in known:
            self.mistakes.append(f"{what} '{word}'{nearest(word, known)}")

    def _data(self, text: dict[str, Any]) -> Any:
        if "data" not in text:
            return None
        chosen = self._word(text["data"], words("compress.data"), "data", "data")
        if chosen is None:
            return None
        word, options = chosen
        if isinstance(options.get("root"), str):
            options = {**options, "root": str(self._found(options["root"]))}
        return self._options(named("compress.data", word), options, f"data ({word})")

    def _network(self, text: dict[str, Any], data: Any) -> tuple[dict[str, dict[str, Any]], Path | None] | None:
        if "network" not in text:
            return None
        chosen = self._word(text["network"], words("compress.networks"), "network", "network")
        if chosen is None:
            return None
        word, options = chosen
        weights = options.pop("weights", None)
        if weights is not None and not isinstance(weights, str):
            self.mistakes.append(f"network ({word}): weights: {weights!r} is not a path")
            weights = None
        if word in ("python", "onnx") and isinstance(options.get("path"), str):
            options = {**options, "path": str(self._found(options["path"]).absolute())}
            # An ONNX file brings its weights.
            weights = options["path"] if word == "onnx" and weights is None else weights
        made = self._options(named("compress.networks", word), options, f"network ({word})")
        place = None if weights is None else self._found(weights)
        if made is None or not self._knows(made, word, place, data):
            return None
        return {word: dataclasses.asdict(made)}, place

    def _knows(self, network: Any, word: str, weights: Path | None, data: Any) -> bool:
        """Whether another library, or a user's file, has the network that is asked of it."""
        check, where = getattr(network, "check", None), f"network ({word})"
        try:
            if check is not None:
                check()
        except SeveralOutputs as error:
            best = which_output(error.outputs, {word: dataclasses.asdict(network)}, weights, data)
            self.mistakes.append(f"{where}: {error}; {best}")
            return False
        except SegpressError as error:
            self.mistakes.append(f"{where}: {error}")
            return False
        return True

    def _found(self, path: str) -> Path:
        """A path in a recipe is relative to the recipe's folder, or, if nothing is there, to where we are."""
        beside = self.path.parent / path
        return beside if beside.exists() or not Path(path).exists() else Path(path)

    def _list(self, key: str, text: dict[str, Any]) -> list[Any]:
        steps = text.get(key, [])
        if not isinstance(steps, list):
            self.mistakes.append(f"{key}: a list, each entry one word and its options")
            return []
        return steps

    def _word(self, entry: Any, known: Sequence[str], where: str, what: str) -> tuple[str, dict[str, Any]] | None:
        """One word and its options, or a mistake."""
        if isinstance(entry, str):
            entry = {entry: {}}
        if not isinstance(entry, dict) or len(entry) != 1:
            self.mistakes.append(f"{where}: one word and its options, such as '{known[0]}: {{...}}', not {entry!r}")
            return None
        ((word, options),) = entry.items()
        if word not in known:
            self.mistakes.append(f"{where} ({word}): no such {what}{nearest(str(word), known)}")
            return None
        options = {} if options is None else options
        if not isinstance(options, dict):
            self.mistakes.append(f"{where} ({word}): its options are names with values, not {options!r}")
            return None
        return word, dict(options)

    def _options(self, kind: type[Value], options: Any, where: str) -> Value | None:
        if not isinstance(options, dict):
            self.mistakes.append(f"{where}: its options are names with values, not {options!r}")
            return None
        names = [option.name for option in dataclasses.fields(kind)]  # type: ignore[arg-type]
        flags = [key for key in names if holds_bool(options.get(key)) and not takes_bool(kind, key)]
        self.mistakes += [f"{where}: {key}: {options[key]} is not a number or a word" for key in flags]
        try:
            return TypeAdapter(kind).validate_python(options)
        except ValidationError as error:
            faults = [fault for fault in error.errors() if not set(fault["loc"][:1]) & set(flags)]
            self.mistakes += [sentence(dict(fault), where, names_at(kind, fault["loc"][:-1])) for fault in faults]
            return None


def _steps(text: Mapping[str, Any]) -> list[str]:
    """The names of the steps that a recipe's text will make, those it compares with included."""
    passes, chains = text.get("passes"), text.get("compare")
    given = passes if isinstance(passes, list) else []
    steps = [next(iter(step), "") if isinstance(step, dict) else step for step in given]
    numbered = [f"{number:02d}-{word}" for number, word in enumerate(steps, start=1)]
    return ["baseline", *numbered, *(chains if isinstance(chains, dict) else ())]
