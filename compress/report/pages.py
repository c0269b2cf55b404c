"""The HTML pages' templates, and what all of them are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from compress.report.derived.numbers import NOTHING


def page(name: str, **known: Any) -> Template:
    """A template of this folder; a name that it does not know is an error, and what it shows is escaped.

    Args:
        known: what its macros and parts know besides what it is rendered with.
    """
    pages = Environment(
        loader=PackageLoader("compress", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals.update(nothing=NOTHING, reach=reach, longest=longest, **known)
    return pages.get_template(name)


def reach(row: Sequence[str], start: int) -> int:
    """How many columns a cell can take: its own, and the empty ones behind it."""
    return 1 + sum(1 for _ in takewhile(lambda cell: cell == NOTHING, row[start + 1 :]))


def longest(text: str) -> int:
    """The letters of its longest word: a hash or a path must be broken where there is little room, a number never."""
    return max(map(len, text.split()), default=0)
