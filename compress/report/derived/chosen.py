"""What a search chose and measured, in words: the same on its page, on the terminal, and in its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from compress.report.derived import numbers


def in_words(value: Any, among: Sequence[Any] = ()) -> str:
    """A chosen value in one line of YAML; of a step its word alone, where it is told from the others by that."""
    word = word_of(value)
    if word is not None and [word_of(each) for each in among].count(word) == 1:
        return word
    if isinstance(value, float):
        return f"{value:.4g}"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("...\n").strip()
    return text.removeprefix("{").removesuffix("}") if isinstance(value, Mapping) else text


def word_of(value: Any) -> str | None:
    """The word of a step, with or without options; None of anything else."""
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return value if isinstance(value, str) else None


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each name without the place in a list that it is at, `prune.macs`, where nothing else is called so."""
    short = {name: name.partition("].")[2] or name for name in names}
    return {name: each if list(short.values()).count(each) == 1 else name for name, each in short.items()}


def value_in_words(objective: str, value: float | None) -> str:
    """A number of an objective, with the digits that reports give it.

    Args:
        objective: its word.
    """
    if objective == "score":
        return numbers.fixed(value)
    return numbers.amount(value) if objective in ("latency_ms", "size_mb") else numbers.large(value)
