"""The sections of a recipe that are lists of words: passes, the chains they are compared with, gates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from compress.gates.judging.judge import TAKES, Gate
from compress.recipe.entries import Entries
from compress.recipe.options import nearest
from export.registry import named, words


def read_passes(entries: Entries, steps: Sequence[Any], where: str) -> list[tuple[str, Any]]:
    """The passes of these steps, each with its word."""
    passes = []
    for index, step in enumerate(steps):
        chosen = entries.word(step, words("compress.passes"), f"{where}[{index}]", "pass")
        if chosen is not None:
            word, options = chosen
            made = entries.options(named("compress.passes", word), options, f"{where}[{index}] ({word})")
            if made is not None:
                passes.append((word, made))
    return passes


def read_compare(entries: Entries, text: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """The chains that the recipe's own is compared with, by their titles."""
    chains = text.get("compare", {})
    if not isinstance(chains, dict):
        entries.mistakes.append("compare: titles, each with its passes, such as 'int8_alone: [int8]'")
        return {}
    if chains and not text.get("passes"):
        entries.mistakes.append("compare: the recipe has no passes of its own to compare; give passes")
    found = {}
    for title, steps in chains.items():
        where = f"compare.{title}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", title) or title in (*words("export.backends"), "baseline"):
            entries.mistakes.append(f"{where}: cannot be a title; use small letters, digits and '_', and no backend")
        if not isinstance(steps, list) or not steps:
            entries.mistakes.append(f"{where}: a list of passes, each one word and its options")
            continue
        found[title] = read_passes(entries, steps, where)
    return found


def read_gates(entries: Entries, text: dict[str, Any]) -> list[tuple[Any, Gate]]:
    """The limits, each with its word."""
    gates = []
    for index, limit in enumerate(entries.listed("gates", text)):
        chosen = entries.word(limit, list(TAKES), f"gates[{index}]", "gate")
        if chosen is None:
            continue
        name, options = chosen
        where = f"gates[{index}] ({name})"
        wrong = [key for key in options if key not in TAKES[name]]
        for key in wrong:
            entries.mistakes.append(f"{where}: no option '{key}'{nearest(key, TAKES[name])}")
        bound = next(key for key in ("at_least", "at_most", "dice") if key in TAKES[name])
        if bound not in options and not wrong:
            entries.mistakes.append(f"{where}: lacks the option '{bound}'")
        # The limit that is missing or misspelt has been told of; the other options are still checked.
        taken = {
            bound: {"at_least": 0} if bound == "dice" else 0,
            **{key: value for key, value in options.items() if key not in wrong},
        }
        gate = entries.options(Gate, taken, where)
        if gate is not None:
            entries.check_known(gate.device, words("export.devices"), f"{where}: no device")
            entries.check_known(gate.backend, words("export.backends"), f"{where}: no backend")
            entries.check_known(
                gate.over, [*words("export.backends"), *step_names(text)], f"{where}: no backend or step"
            )
            gates.append((name, gate))
    return gates


def step_names(text: Mapping[str, Any]) -> list[str]:
    """The names of the steps that a recipe's text will make, those it compares with included."""
    passes, chains = text.get("passes"), text.get("compare")
    given = passes if isinstance(passes, list) else []
    steps = [next(iter(step), "") if isinstance(step, dict) else step for step in given]
    numbered = [f"{number:02d}-{word}" for number, word in enumerate(steps, start=1)]
    return ["baseline", *numbered, *(chains if isinstance(chains, dict) else ())]
