"""Options that several gates have: one name and one meaning for each idea."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

OPTIONS = ConfigDict(extra="forbid")

Limit = Annotated[float, Field(allow_inf_nan=False)]
OneDevice = Annotated[
    str | None, Field(description="The device whose artifacts are judged; none judges those of every device.")
]
OneBackend = Annotated[
    str | None, Field(description="The backend whose artifacts are judged; none judges those of every backend.")
]
# "class" is a keyword of Python: the field that has this option is called class_name.
OneClass = Annotated[
    str | None,
    Field(alias="class", description="The foreground class that is judged; none judges every one, and each must hold."),
]
Percentile = Literal[50, 90, 95, 99]
Over = Annotated[
    str | None,
    Field(
        description="What the ratio is over: a backend (its baseline), a step of the recipe or a chain of its "
        "`compare` (on the artifact's own backend); none takes the baseline on the artifact's own backend."
    ),
]
