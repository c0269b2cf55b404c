"""The options of one word, checked against the fields of its dataclass; pydantic's errors in our own words."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints


def takes_bool(kind: type, key: str) -> bool:
    # Options that are passed on to another library's network may be of any kind.
    return any(
        option.name == key and re.search(r"bool|dict\[str, typing.Any\]", str(option.type))
        for option in dataclasses.fields(kind)
    )


def holds_bool(value: Any) -> bool:
    """Whether yes or no is in a value: pydantic would take it for 1 or 0."""
    if isinstance(value, list | dict):
        return any(map(holds_bool, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool)


def names_at(kind: Any, path: Sequence[Any]) -> list[str]:
    """The options of a dataclass, or of one that a `path` of options leads to inside it."""
    for part in path:
        option = get_type_hints(kind).get(part) if kind is not None else None
        kind = next((each for each in (option, *get_args(option)) if dataclasses.is_dataclass(each)), None)
    return option_names(kind) if kind is not None else []


def option_names(kind: Any) -> list[str]:
    """The options of a dataclass, as recipes write them: the gates' `class` is no name that Python allows."""
    return [option.alias or name for name, option in kind.__pydantic_fields__.items()]


def without_misspelt(faults: Sequence[Any], kind: type) -> list[Any]:
    """The faults, without the lack of an option that is there, but misspelt: that is told already."""
    unknown = [fault["loc"] for fault in faults if fault["type"] == "unexpected_keyword_argument"]
    meant = [
        (*path, name)
        for *path, word in unknown
        for name in difflib.get_close_matches(str(word), names_at(kind, path), n=1, cutoff=0.5)
    ]
    return [fault for fault in faults if not (fault["type"].startswith("missing") and fault["loc"] in meant)]


def sentence(fault: dict[str, Any], where: str, names: Sequence[str]) -> str:
    """A pydantic error in our own words."""
    path = ".".join(str(part) for part in fault["loc"])
    kind, value = fault["type"], fault.get("input")
    if kind == "unexpected_keyword_argument":
        return f"{where}: no option '{path}'{nearest(str(fault['loc'][-1]), names)}"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{where}: lacks the option '{path}'"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'|(\d+)", fault["ctx"]["expected"])
        allowed = [word or number for word, number in choices]
        near = "" if str(value) in allowed else nearest(str(value), allowed, listed=True)
        return f"{where}: {path}: {value!r} is not one of {', '.join(allowed)}{near}"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{where}: {path}: {value!r}: {message}" if path else f"{where}: {message}"


def nearest(word: str, known: Sequence[str] | frozenset[str], *, listed: bool = False) -> str:
    """What was probably meant, or what there is to choose from."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return "" if listed else f"; there are {', '.join(sorted(known))}"
