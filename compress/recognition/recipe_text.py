"""A recipe as a person reads it: every line that was found out says how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a recipe says, and why."""

    name: str
    seed: int
    network: Mapping[str, Mapping[str, Any]]
    """One word and its options, the weights among them."""
    root: str
    table: str | None
    """Where split.csv lies; None where it lies in `root`."""
    classes: Sequence[str]
    size: tuple[int, int]
    masks: Mapping[str, str] | None
    """The class of each stored value, as a recipe writes it; None where masks hold class indices."""
    ignore: int | None
    normalization: Mapping[str, Any]
    window: tuple[float, float] | None
    calibration: int
    comments: Mapping[str, Sequence[str]]
    """Sentences to stand above a key."""

    def as_yaml(self) -> str:
        """The file's text."""
        ((word, options),) = self.network.items()
        folder = [f"root: {_text(self.root)}"]
        folder += [] if self.table is None else [f"table: {_text(self.table)}"]
        folder += [f"classes: [{', '.join(map(_text, self.classes))}]"]
        folder += [*self._said("size"), f"size: [{self.size[0]}, {self.size[1]}]"]
        if self.masks is not None:
            pairs = ", ".join(f"{value}: {_text(name)}" for value, name in self.masks.items())
            folder += [*self._said("masks"), f"masks: {{{pairs}}}"]
        if self.ignore is not None:
            folder += [f"ignore: {self.ignore}"]
        if self.window is not None:
            folder += [f"window: [{self.window[0]:g}, {self.window[1]:g}]"]
        said = ", ".join(f"{key}: {_numbers(value)}" for key, value in self.normalization.items())
        folder += [*self._said("normalization"), f"normalization: {{{said}}}"]
        folder += [f"calibration: {self.calibration}  # train cases that give int8 its ranges"]
        lines = [
            "# Written by compress init. Look first, then run:",
            "#   compress check THIS FILE",
            "#   compress run THIS FILE",
            f"name: {self.name}  # of the run's folder: runs/{self.name}",
            f"seed: {self.seed}",
            *self._said("network"),
            "network:",
            f"  {word}:",
            *(f"    {key}: {_flow(value)}" for key, value in options.items()),
            *self._said("data"),
            "data:",
            "  folder:",
            *(f"    {line}" for line in folder),
            "passes:",
            "  # 8-bit integers; prune and distill may come before it: docs/passes.md.",
            f"  - int8: {{calibrate: {self.calibration}}}",
            "# Where it must run: ls export/devices; a Jetson over SSH is - orin_nano: {at: HOST}.",
            "devices: [cpu]",
            "gates:",
            "  # The Dice that each class may lose, by a test of non-inferiority: it needs 30 test cases or more.",
            "  - dice_drop: {at_most: 0.01}",
            "  - smaller: {at_least: 3}",
            "  # - latency_ms: {at_most: 33}",
        ]
        return "\n".join(lines) + "\n"

    def _said(self, key: str) -> list[str]:
        return [f"# {sentence}" for sentence in self.comments.get(key, ())]


def _numbers(value: Any) -> str:
    return str([float(f"{each:.6g}") for each in value] if isinstance(value, list) else value)


def _text(value: str) -> str:
    """A string as YAML reads it back."""
    plain = value and all(letter.isalnum() or letter in "_-./ " for letter in value) and value.strip() == value
    known = value.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n", "~")
    ordinary = (plain and not known and value[0].isalpha()) or value.startswith(("/", "../"))
    return value if ordinary and plain else json.dumps(value, ensure_ascii=False)


def _flow(value: Any) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
