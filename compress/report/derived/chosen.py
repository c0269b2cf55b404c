"""What a search chose and measured, in words: the same on its page, on the terminal, and in its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from compress.report.derived import numbers

NONE = "none"
"""In a list, no entry."""
NETWORK = "network."
"""How decisions begin whose lists are no steps."""


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


def titles(space: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What each decision is called in tables, by its name: `prune.macs`; where a step is chosen, `lowrank / depthwise`.

    Args:
        space: of each decision its `name`, and its `choices` if it is none between two numbers.
    """
    short = {each["name"]: _short(each) for each in space}
    return {name: each if list(short.values()).count(each) == 1 else name for name, each in short.items()}


def _short(decision: Mapping[str, Any]) -> str:
    """Without the place in a list that it is at, or the network that it is of; of steps their words."""
    name: str = decision["name"]
    if name.startswith(NETWORK):
        return name.removeprefix(NETWORK).partition(".")[2] or name
    words = [word_of(each) for each in decision.get("choices", ()) if each != NONE]
    if name.endswith("]") and 0 < len(words) <= 3 and None not in words:
        return " / ".join(dict.fromkeys(map(str, words)))
    return name.partition("].")[2] or name


def chosen_in_words(space: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    """What a trial chose, in one line, without steps that it left out."""
    called, among = titles(space), {each["name"]: each.get("choices", ()) for each in space}
    said = []
    for name, value in values.items():
        words = in_words(value, among[name])
        if name.endswith("]") and not name.startswith(NETWORK):
            said += [] if value == NONE else [words]
        else:
            said.append(f"{called[name]} {words}")
    return ", ".join(said) or "no pass"


def value_in_words(objective: str, value: float | None) -> str:
    """A number of an objective, with the digits that reports give it.

    Args:
        objective: its word.
    """
    if objective == "score":
        return numbers.fixed(value)
    return numbers.amount(value) if objective in ("latency_ms", "size_mb") else numbers.large(value)
