"""The sections of a recipe that are lists of words: passes, chains to compare with, post-processing, gates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compress.gates.judging.gate import Gate
from compress.recipe.entries import Entries
from compress.recipe.options import option_names
from export.reach import word_of
from export.registry import named, words

if TYPE_CHECKING:
    from compress.contracts import Pass
    from export.modules import Precision

RENAMED: Mapping[str, Mapping[str, str]] = {
    "int8": {"keep_float": "keep", "most_drop": "max_drop"},
    "sparsify": {"keep_dense": "keep"},
    "truncate": {"drop": "max_drop"},
}
"""Options of passes by the names that they had, and the names that they have."""

_BEHIND: Mapping[tuple[str, str], str] = {
    ("binary", "binary"): "layers have their bits already; give it once",
    ("binary", "depthwise"): "it leaves layers in bits as they are; give depthwise before binary",
    ("binary", "lowrank"): "it leaves layers in bits as they are; give lowrank before binary",
    ("binary", "half"): "half would store 16 bits of each weight that has one; leave one of them out",
}
"""Passes that have nothing to do behind another, or undo it, and why."""

_WORDS: Mapping[Precision, str] = {"half": "16-bit float"}


def read_passes(entries: Entries, steps: Sequence[Any], where: str) -> list[tuple[str, Any]]:
    """The passes of these steps, each with its word."""
    made = _made(entries, steps, where, "compress.passes", "pass")
    entries.mistakes += _out_of_order(made, where)
    return list(made.values())


def _out_of_order(passes: Mapping[int, tuple[str, Pass]], where: str) -> Iterator[str]:
    """A mistake for each pass that does not take what those before it make."""
    precision: Precision = "float"
    maker = ""
    seen: list[str] = []
    for index, (word, step) in passes.items():
        undone = next((before for before in seen if (before, word) in _BEHIND), None)
        if undone is not None:
            yield f"{where}[{index}] ({word}): behind {undone} {_BEHIND[undone, word]}"
            return
        seen.append(word)
        if step.requires != precision:
            last = step.ensures != "float" and word != maker
            right = f"leave one of them out: {word} and {maker} are each the last pass" if last else None
            right = right or (f"give {word} before {maker}" if word != maker else "give it once")
            why = f"takes a network in {step.requires}, and {maker} made it {_WORDS.get(precision, precision)}"
            yield f"{where}[{index}] ({word}): {why}; {right}"
            return
        if step.ensures != precision:
            precision, maker = step.ensures, word


def read_postprocess(entries: Entries, text: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is done to answers before they are scored, each step with its word."""
    # Only here: it applies the steps with torch, without which gates are read.
    from compress.postprocess.applying.chain import out_of_order

    made = _made(entries, entries.listed("postprocess", text), "postprocess", "compress.postprocess", "step")
    entries.mistakes += out_of_order(made)
    return list(made.values())


def _made(entries: Entries, steps: Sequence[Any], where: str, package: str, what: str) -> dict[int, tuple[str, Any]]:
    """Each word with its configured step, by its index in the list; without those that are wrong."""
    right = {}
    for index, step in enumerate(steps):
        chosen = entries.word(step, words(package), f"{where}[{index}]", what)
        if chosen is not None:
            word, options = chosen
            renamed = RENAMED.get(word, {})
            made = entries.options(named(package, word), options, f"{where}[{index}] ({word})", renamed)
            if made is not None:
                right[index] = (word, made)
    return right


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


def read_gates(entries: Entries, text: dict[str, Any]) -> list[tuple[str, Gate]]:
    """The gates, each with its word."""
    gates = []
    steps = [*words("export.backends"), *step_names(text)]
    for index, entry in enumerate(entries.listed("gates", text)):
        chosen = entries.word(entry, words("compress.gates"), f"gates[{index}]", "gate")
        if chosen is None:
            continue
        word, options = chosen
        where, kind = f"gates[{index}] ({word})", named("compress.gates", word)
        known = {"device": words("export.devices"), "backend": words("export.backends"), "over": steps}
        for option in [name for name in known if name in option_names(kind)]:
            what = "backend or step" if option == "over" else option
            given = options.get(option)
            # A device may be named with its host and a DLA core.
            plain = word_of(given) if option == "device" and isinstance(given, str) else given
            entries.check_known(plain, known[option], f"{where}: no {what}")
        gate = entries.options(kind, options, where)
        if gate is not None:
            gates.append((word, gate))
    return gates


def step_names(text: Mapping[str, Any]) -> list[str]:
    """The names of the steps that a recipe's text will make, those it compares with included."""
    passes, chains = text.get("passes"), text.get("compare")
    given = passes if isinstance(passes, list) else []
    steps = [next(iter(step), "") if isinstance(step, dict) else step for step in given]
    numbered = [f"{number:02d}-{word}" for number, word in enumerate(steps, start=1)]
    return ["baseline", *numbered, *(chains if isinstance(chains, dict) else ())]
