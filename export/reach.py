"""How a device is reached, and how it is set while it is measured: the options of an entry of a recipe's `devices`."""

from __future__ import annotations

import re
from typing import Annotated

import pydantic
from pydantic import AfterValidator, ConfigDict, Field

HERE = "here"
"""What stands for this host where a device is named with its host: `cpu@here`."""

DLA = "+dla"
"""What stands before the number of a DLA core in a device's name: `agx_orin@tower-7+dla0`."""


PYTHON = "python3"
"""The Python there, where no other is named."""

HOST = "[A-Za-z0-9_][A-Za-z0-9_.@:%-]*"
"""The pattern of a host, as `ssh` may know it."""


def word_of(name: str) -> str:
    """A device's word, of a name with its host or DLA core behind it: `agx_orin` of `agx_orin@tower-7+dla0`."""
    return name.partition(DLA)[0].partition("@")[0]


def _host(name: str) -> str:
    if not re.fullmatch(HOST, name):
        raise ValueError(
            f"{name!r} is no host: a name as `ssh` knows it, not beginning with '-'; a port stands in ~/.ssh/config"
        )
    if name == HERE:
        raise ValueError(f"'{HERE}' is this host: leave `at` out")
    return name


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Reach:
    """How a device is reached, and how it is set while it is measured."""

    at: Annotated[str, AfterValidator(_host)] | None = None
    """A host as `ssh` knows it, such as one of ~/.ssh/config; None is this host."""
    python: Annotated[str, Field(min_length=1)] = PYTHON
    """The Python there that has the runtimes."""
    backends: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The runtimes that are built for it, in place of the profile's: any of export/backends/ that computes on it."""
    dla: Annotated[int, Field(ge=0, le=15)] | None = None
    """The DLA core that computes, and the GPU what it does not take; None is the GPU alone."""
    soak: Annotated[float, Field(gt=0, le=240, allow_inf_nan=False)] | None = None
    """Minutes, at most, for which the last step's artifacts run until the temperature has settled, so that warm times
    are told too; None runs none."""
    power_mode: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")] | None = None
    """The mode of `nvpmodel` that a Jetson is set to while it is measured, such as MAXN or 15W, and put back from; None
    changes nothing."""
