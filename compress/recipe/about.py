"""What a network is for, in the words of those who answer for it: the recipe's `about`."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Sentence = Annotated[str, Field(min_length=1, max_length=2000)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", str_strip_whitespace=True))
class About:
    """Stands at the head of the report and in every pack; nothing is made of it."""

    intended_use: Sentence | None = None
    """For which task, on which images of which devices, by whom."""
    limits: tuple[Sentence, ...] = ()
    """Where it must not be used, and what is known to go wrong; a sentence each."""
    contact: Sentence | None = None
    """Who is told of a fault."""
