"""What sections of a recipe are made of: lists, words and their options, each mistake kept with its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from compress.recipe.options import holds_bool, names_at, nearest, sentence, takes_bool, without_misspelt

Value = TypeVar("Value")


class Entries:
    """Entries of the recipe in this file; mistakes are collected, not raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mistakes: list[str] = []

    def listed(self, key: str, text: dict[str, Any]) -> list[Any]:
        """The entries of a section that is a list."""
        steps = text.get(key, [])
        if not isinstance(steps, list):
            self.mistakes.append(f"{key}: a list, each entry one word and its options")
            return []
        return steps

    def word(self, entry: Any, known: Sequence[str], where: str, what: str) -> tuple[str, dict[str, Any]] | None:
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

    def options(
        self, kind: type[Value], options: Any, where: str, renamed: Mapping[str, str] | None = None
    ) -> Value | None:
        """A word's options as its dataclass; None if some are wrong.

        Args:
            renamed: options by the names that they had, with those that they have.
        """
        if not isinstance(options, dict):
            self.mistakes.append(f"{where}: its options are names with values, not {options!r}")
            return None
        old = [key for key in renamed or {} if key in options]
        if renamed and old:
            self.mistakes += [f"{where}: '{key}' is now '{renamed[key]}'" for key in old]
            options = {key: value for key, value in options.items() if key not in old}
        names = [option.name for option in dataclasses.fields(kind)]  # type: ignore[arg-type]
        flags = [key for key in names if holds_bool(options.get(key)) and not takes_bool(kind, key)]
        self.mistakes += [f"{where}: {key}: {options[key]} is not a number or a word" for key in flags]
        try:
            return TypeAdapter(kind).validate_python(options)
        except ValidationError as error:
            faults = [fault for fault in error.errors() if not set(fault["loc"][:1]) & set(flags)]
            faults = without_misspelt(faults, kind)
            self.mistakes += [sentence(dict(fault), where, names_at(kind, fault["loc"][:-1])) for fault in faults]
            return None

    def check_known(self, word: Any, known: Sequence[str], what: str) -> None:
        """A mistake where a word is none of those known."""
        if isinstance(word, str) and word not in known:
            self.mistakes.append(f"{what} '{word}'{nearest(word, known)}")

    def resolved(self, path: str) -> Path:
        """A path in a recipe is relative to the recipe's folder, or, if nothing is there, to where we are."""
        beside = self.path.parent / path
        return beside if beside.exists() or not Path(path).exists() else Path(path)
