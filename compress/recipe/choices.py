"""What a recipe may leave to a search: `{choices: [a, b]}`, `{between: [0.2, 0.8]}`, `{choice: NAME}`.

`compress search` tries them (compress/search); `compress run` takes a recipe in which every value stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ONE_OF, NUMBER, NAMED = "choices", "between", "choice"
SECTION = "search"
"""The recipe's key for how a search is done; `choices` as a key of the recipe names choices for several places."""
_KEYS = ({ONE_OF}, {NAMED}, {NUMBER, "step", "log"})


def is_choice(node: Any) -> bool:
    """Whether a value is left to a search: a mapping of no other keys, since networks of others have any arguments."""
    if not isinstance(node, Mapping):
        return False
    return any(first in node and set(node) <= keys for first, keys in zip((ONE_OF, NAMED, NUMBER), _KEYS, strict=True))


def misspelt(node: Any, where: str = "") -> Iterator[str]:
    """A mistake for each mapping that would be a choice but for a key; networks of others have any arguments."""
    if isinstance(node, Mapping):
        for first, keys in zip((ONE_OF, NUMBER), (_KEYS[0], _KEYS[2]), strict=True):
            if first in node and where and not set(node) <= keys:
                other = next(str(key) for key in node if key not in keys)
                beside = f"{' and '.join(sorted(keys - {first}))} stand" if keys - {first} else "nothing else stands"
                yield f"{where}: '{other}' beside '{first}', beside which {beside}"
    parts = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in parts:
        name = f"{where}[{key}]" if isinstance(node, list) else f"{where}.{key}" if where else str(key)
        if name != "network":
            yield from misspelt(value, name)


def places(node: Any, where: str = "") -> Iterator[str]:
    """Where choices stand in a recipe's text, outermost only: `passes[0].prune.ratio`."""
    if is_choice(node) and where:
        yield where
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from places(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from places(value, f"{where}[{index}]")


def why_no_run(text: Mapping[str, Any]) -> str | None:
    """The sentence for a recipe that is to be run, and leaves something to a search; None for one that does not."""
    keys = [f"the section '{key}'" for key in (SECTION, ONE_OF) if key in text]
    found = [*(f"choices at {place}" for place in places(without_search(text))), *keys]
    if not found:
        return None
    more = f" and {len(found) - 1} more" if found[1:] else ""
    return f"has {found[0]}{more}: `compress search` tries them; `compress run` takes one value and no '{SECTION}'"


def without_search(text: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's text without what only a search reads."""
    return {key: value for key, value in text.items() if key not in (SECTION, ONE_OF)}
